"""The reader on sound files: every value kind, tensors, laziness, files that are no models."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest

from rocmforge.errors import InternalError, InvalidModelFile, IoError, MmapError, TensorNotFound
from rocmforge.gguf import reader
from rocmforge.gguf.metadata import StringArray, ValueKind
from rocmforge.gguf.reader import GGUFFile
from rocmforge.quant.formats import GGMLType
from tests.support import raw_gguf as raw
from tests.support.gguf_files import tiny_model_metadata, tiny_model_tensors, write_tiny_model


def write(path, data):
    path.write_bytes(data)
    return path


SCALARS = {
    ValueKind.UINT8: ("<B", 200),
    ValueKind.INT8: ("<b", -100),
    ValueKind.UINT16: ("<H", 60000),
    ValueKind.INT16: ("<h", -30000),
    ValueKind.UINT32: ("<I", 4_000_000_000),
    ValueKind.INT32: ("<i", -2_000_000_000),
    ValueKind.FLOAT32: ("<f", 1.5),
    ValueKind.BOOL: ("<?", True),
    ValueKind.UINT64: ("<Q", 2**64 - 1),
    ValueKind.INT64: ("<q", -(2**63)),
    ValueKind.FLOAT64: ("<d", 1e300),
}


@pytest.mark.parametrize("kind", SCALARS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("version", [2, 3])
def test_scalars_and_arrays_of_every_kind(tmp_path, kind, version):
    code, value = SCALARS[kind]
    packed = struct.pack(code, value)
    data = raw.gguf(
        [
            raw.entry("one", kind, packed),
            raw.entry("many", ValueKind.ARRAY, raw.array(kind, 3, packed * 3)),
            raw.entry("none", ValueKind.ARRAY, raw.array(kind, 0)),
        ],
        version=version,
    )
    with GGUFFile.open(write(tmp_path / "x.gguf", data)) as file:
        assert file.version == version
        assert file.metadata["one"] == value
        assert type(file.metadata["one"]) is type(value)
        assert file.metadata["many"].tolist() == [value] * 3
        assert len(file.metadata["none"]) == 0


def test_strings_and_nested_arrays(tmp_path):
    words = ["", "a", "Ġhello", "日本", "\x00"]
    strings = raw.array(ValueKind.STRING, 5, b"".join(map(raw.text, words)))
    numbers = raw.array(ValueKind.UINT8, 2, b"\1\2")
    inner = raw.array(ValueKind.ARRAY, 2, numbers + strings)
    data = raw.gguf(
        [
            raw.entry("text", ValueKind.STRING, raw.text("grüß")),
            raw.entry("words", ValueKind.ARRAY, strings),
            raw.entry("nested", ValueKind.ARRAY, raw.array(ValueKind.ARRAY, 2, inner + numbers)),
            raw.entry("broken", ValueKind.STRING, raw.text(b"a\xffb")),
        ]
    )
    with GGUFFile.open(write(tmp_path / "x.gguf", data)) as file:
        assert file.metadata["text"] == "grüß"
        assert list(file.metadata["words"]) == words
        first, second = file.metadata["nested"]
        assert first[0].tolist() == second.tolist() == [1, 2]
        assert list(first[1]) == words
        assert file.metadata["broken"] == "a�b"


def test_strings_are_found_without_being_decoded(tmp_path):
    # Longer than one read, so that the scan meets the end of what is in memory.
    words = [f"token-{i}" + "x" * (i % 50) for i in range(60_000)]
    payload = raw.array(ValueKind.STRING, len(words), b"".join(map(raw.text, words)))
    data = raw.gguf([raw.entry("words", ValueKind.ARRAY, payload), raw.u32_entry("after", 7)])
    assert len(data) > 2 << 20
    with GGUFFile.open(write(tmp_path / "x.gguf", data)) as file:
        array = file.metadata["words"]
    assert isinstance(array, StringArray)
    assert not any(isinstance(held, list | str) for held in vars(array).values())
    assert file.metadata["after"] == 7
    assert array[59_999] == words[-1]
    assert array[-1] == words[-1]
    assert array[10:12] == words[10:12]
    assert array.raw(3) == words[3].encode()
    assert array == words
    assert array != words[:-1]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_tensors_of_a_model(tmp_path, architecture):
    path = write_tiny_model(tmp_path / "m.gguf", architecture, seed=3)
    expected = tiny_model_tensors(tiny_model_metadata(architecture), seed=3)
    with GGUFFile.open(path) as file:
        assert file.tensors.keys() == expected.keys()
        for name, array in expected.items():
            info = file.tensors[name]
            assert (info.type, info.shape) == (GGMLType.F32, array.shape)
            assert info.n_bytes == array.nbytes
            assert info.start % file.alignment == 0
            view = file.tensor_bytes(name)
            assert view.readonly
            assert bytes(view) == array.tobytes()


def test_views_outlive_the_file(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf")
    file = GGUFFile.open(path)
    view = np.frombuffer(file.tensor_bytes("output.weight"), np.float32)
    file.close()
    assert np.isfinite(view).all()
    with pytest.raises(InternalError):
        file.tensor_bytes("output.weight")


def test_unknown_tensor(tmp_path):
    with (
        GGUFFile.open(write_tiny_model(tmp_path / "m.gguf")) as file,
        pytest.raises(TensorNotFound, match=r"m\.gguf has no tensor 'nothing'"),
    ):
        file.tensor_bytes("nothing")


def test_without_tensors_nothing_is_mapped(tmp_path, monkeypatch):
    path = write_tiny_model(tmp_path / "m.gguf")

    def refuse(*args, **kwargs):
        raise OSError("no maps here")

    monkeypatch.setattr(reader.mmap, "mmap", refuse)
    with GGUFFile.open(path, map_tensors=False) as file:
        assert "output.weight" in file.tensors
        with pytest.raises(InternalError, match="map_tensors"):
            file.tensor_bytes("output.weight")
    with pytest.raises(MmapError, match="no maps here"):
        GGUFFile.open(path)


def test_header_only_reads_no_tensor_data(tmp_path, monkeypatch):
    path = tmp_path / "big.gguf"
    n = 64 << 20
    header = raw.gguf([], [raw.tensor("t", [n], type_=24)])
    with path.open("wb") as out:
        out.write(header)
        out.truncate(len(header) + n)
    read = []
    original = os.pread

    def counted(fd, count, offset):
        read.append(count)
        return original(fd, count, offset)

    monkeypatch.setattr(os, "pread", counted)
    with GGUFFile.open(path, map_tensors=False) as file:
        assert file.tensors["t"].n_bytes == n
    assert sum(read) <= 1 << 20


def test_alignment_from_the_file(tmp_path):
    data = raw.gguf(
        [raw.u32_entry("general.alignment", 256)],
        [raw.tensor("a", [1]), raw.tensor("b", [1], offset=256)],
        struct.pack("<f", 1) + bytes(252) + struct.pack("<f", 2),
        alignment=256,
    )
    with GGUFFile.open(write(tmp_path / "x.gguf", data)) as file:
        assert file.alignment == 256
        assert bytes(file.tensor_bytes("b")) == struct.pack("<f", 2)


@pytest.mark.parametrize(
    "content", [b"", b"GG", b"GGUF", b"PK\x03\x04 something else", b"GGUF\3\0"]
)
def test_other_files(tmp_path, content):
    with pytest.raises(InvalidModelFile, match=r"x\.gguf: .*(magic|GGUF|version)"):
        GGUFFile.open(write(tmp_path / "x.gguf", content))


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing.gguf", ".", "pipe", "zero\0byte"):
        with pytest.raises(IoError, match="cannot open"):
            GGUFFile.open(tmp_path / name)


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    path = write_tiny_model(tmp_path / "m.gguf")
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: b"")
    with pytest.raises(InvalidModelFile, match="shorter"):
        GGUFFile.open(path)


def test_a_disk_that_fails(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(5, "Input/output error")

    path = write_tiny_model(tmp_path / "m.gguf")
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(IoError, match="Input/output error"):
        GGUFFile.open(path)
