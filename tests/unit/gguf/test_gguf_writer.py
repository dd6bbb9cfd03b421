"""The writer: value kinds, checks, files that appear only when complete."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rocmforge.errors import InvalidConfiguration, InvalidTensorShape, IoError
from rocmforge.gguf.metadata import ValueKind
from rocmforge.gguf.reader import GGUFFile
from rocmforge.gguf.writer import GGUFWriter
from rocmforge.quant.formats import GGMLType


def written(tmp_path, **values):
    """The metadata after a round trip."""
    writer = GGUFWriter(tmp_path / "m.gguf")
    for key, value in values.items():
        writer.add(key, value)
    writer.write()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        return file.metadata


def test_kinds_that_values_get(tmp_path):
    metadata = written(
        tmp_path,
        small=[1, 2],
        signed=[-1, 2],
        wide=[1, 2**40],
        wide_signed=[-(2**40), 1],
        floats=[0.5, 1.5],
        flags=[True, False],
        doubles=np.array([0.1]),
        bytes=np.array([1, 2], np.uint8),
    )
    kinds = {key: metadata[key].dtype.str for key in metadata}
    assert kinds == {
        "small": "<u4",
        "signed": "<i4",
        "wide": "<u8",
        "wide_signed": "<i8",
        "floats": "<f4",
        "flags": "|b1",
        "doubles": "<f8",
        "bytes": "|u1",
    }


def test_nested_arrays(tmp_path):
    metadata = written(tmp_path, nested=[[1, 2], [3]], words=[["a", "b"], ["c"]])
    assert [inner.tolist() for inner in metadata["nested"]] == [[1, 2], [3]]
    assert [list(inner) for inner in metadata["words"]] == [["a", "b"], ["c"]]


def test_what_the_reader_gives_can_be_written_again(tmp_path):
    first = written(tmp_path, words=["a", "Ġb"], numbers=[1, -2], name="x", nested=[[1], [2, 3]])
    again = written(tmp_path, **dict(first))
    assert list(again["words"]) == ["a", "Ġb"]
    assert again["numbers"].tolist() == [1, -2]
    assert [inner.tolist() for inner in again["nested"]] == [[1], [2, 3]]


def test_a_numpy_scalar_keeps_its_value(tmp_path):
    metadata = written(tmp_path, i=np.int64(-3), f=np.float32(0.25), b=np.bool_(True))
    assert (metadata["i"], metadata["f"], metadata["b"]) == (-3, 0.25, True)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (2**64, None),
        ([2**63, -1], None),
        ([1, "a"], None),
        ([1, 0.5], None),
        ([], None),
        (None, None),
        ({"a": 1}, None),
        (np.zeros((2, 2)), None),
        (np.zeros(2, np.complex64), None),
        (256, ValueKind.UINT8),
        (-1, ValueKind.UINT32),
        (0.5, ValueKind.INT32),
        ("a", ValueKind.INT32),
        (1, ValueKind.STRING),
        (1, ValueKind.ARRAY),
        ([1], ValueKind.ARRAY),
        (2, ValueKind.BOOL),
    ],
)
def test_values_that_cannot_be_stored(tmp_path, value, kind):
    writer = GGUFWriter(tmp_path / "m.gguf")
    with pytest.raises(InvalidConfiguration, match=r"the\.key"):
        writer.add("the.key", value, kind)


def test_keys_and_names_once(tmp_path):
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    with pytest.raises(InvalidConfiguration, match=r"'general\.architecture'"):
        writer.add("general.architecture", "qwen2")
    with pytest.raises(InvalidConfiguration, match="''"):
        writer.add("", 1)
    ones = np.ones(4, np.float32)
    writer.add_tensor("t", (4,), GGMLType.F32, ones)
    for name in ("t", ""):
        with pytest.raises(InvalidConfiguration, match=f"'{name}'"):
            writer.add_tensor(name, (4,), GGMLType.F32, ones)


@pytest.mark.parametrize(
    ("shape", "type_", "data"),
    [
        ((4,), GGMLType.F32, np.ones(5, np.float32)),
        ((4,), GGMLType.F32, np.ones(4)),
        ((2, 2, 2, 2, 2), GGMLType.F32, np.ones(32, np.float32)),
        ((), GGMLType.F32, np.ones(1, np.float32)),
        ((0, 4), GGMLType.F32, b""),
        ((1, 16), GGMLType.Q8_0, bytes(17)),
        ((1, 32), GGMLType.Q8_0, bytes(33)),
        ((1, 32), GGMLType.Q8_0, np.ones(32, np.float32)),
    ],
)
def test_tensors_whose_data_does_not_fit(tmp_path, shape, type_, data):
    writer = GGUFWriter(tmp_path / "m.gguf")
    with pytest.raises(InvalidTensorShape, match="t"):
        writer.add_tensor("t", shape, type_, data)


@pytest.mark.parametrize("alignment", [0, 4, 33, 1 << 21])
def test_impossible_alignments(tmp_path, alignment):
    with pytest.raises(InvalidConfiguration, match=f"got {alignment}"):
        GGUFWriter(tmp_path / "m.gguf", alignment=alignment)


def test_arrays_that_are_not_contiguous(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(4, 6).T
    writer = GGUFWriter(tmp_path / "m.gguf")
    writer.add_tensor("t", values.shape, GGMLType.F32, values)
    writer.write()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        found = np.frombuffer(file.tensor_bytes("t"), np.float32).reshape(6, 4)
        assert np.array_equal(found, values)


def test_a_file_appears_only_when_it_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"what was there")

    def fail(fd):
        raise OSError(28, "No space left on device")

    writer = GGUFWriter(path, "llama")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(IoError, match=r"cannot write .*No space left"):
        writer.write()
    assert path.read_bytes() == b"what was there"
    assert os.listdir(tmp_path) == ["m.gguf"]
    monkeypatch.undo()
    writer.write()
    with GGUFFile.open(path) as file:
        assert file.metadata["general.architecture"] == "llama"
    assert os.listdir(tmp_path) == ["m.gguf"]


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(IoError, match="cannot write"):
        GGUFWriter(tmp_path / "nowhere" / "m.gguf").write()
