"""Models split over several files, as gguf's own writer splits them, and splits gone wrong."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from rocmforge.errors import InvalidModelFile, IoError
from rocmforge.gguf.metadata import ValueKind
from rocmforge.gguf.reader import GGUFFile
from rocmforge.gguf.writer import GGUFWriter
from rocmforge.quant.formats import GGMLType


def shard_path(folder, number, count, prefix="m"):
    return folder / f"{prefix}-{number:05d}-of-{count:05d}.gguf"


def write_shards(folder, count=3, *, total=None, change=None):
    """`count` files with one tensor each; `change(number)` gives keys that differ from the rule."""
    for i in range(count):
        keys = {"split.no": i, "split.count": count, "split.tensors.count": total or count}
        keys |= change(i) if change else {}
        writer = GGUFWriter(shard_path(folder, i + 1, count), "llama" if i == 0 else None)
        for key, value in keys.items():
            if value is not None:
                writer.add(key, value, ValueKind.UINT16)
        writer.add_tensor(f"t{i}", (2, 4), GGMLType.F32, np.full((2, 4), i, np.float32))
        writer.write()
    return shard_path(folder, 1, count)


@pytest.mark.parametrize("opened", [1, 2, 3])
def test_any_file_opens_the_model(tmp_path, opened):
    write_shards(tmp_path)
    with GGUFFile.open(shard_path(tmp_path, opened, 3)) as file:
        assert [path.name for path in file.shard_paths] == [
            f"m-{n:05d}-of-00003.gguf" for n in (1, 2, 3)
        ]
        assert file.metadata["general.architecture"] == "llama"
        for i in range(3):
            assert file.tensors[f"t{i}"].shard == i
            values = np.frombuffer(file.tensor_bytes(f"t{i}"), np.float32)
            assert (values == i).all()


def test_a_split_of_the_package(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    for i in range(5):
        writer.add_tensor(f"t{i}", np.full((3, 5), i, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile.open(shard_path(tmp_path, 2, 3)) as file:
        assert [info.shard for info in file.tensors.values()] == [0, 0, 1, 1, 2]
        for i in range(5):
            assert (np.frombuffer(file.tensor_bytes(f"t{i}"), np.float32) == i).all()


def test_a_model_in_one_file_may_say_so(tmp_path):
    writer = GGUFWriter(tmp_path / "any name.gguf", "llama")
    writer.add("split.count", 1, ValueKind.UINT16)
    writer.write()
    with GGUFFile.open(tmp_path / "any name.gguf") as file:
        assert len(file.shard_paths) == 1


def test_a_missing_file(tmp_path):
    path = write_shards(tmp_path)
    shard_path(tmp_path, 2, 3).unlink()
    with pytest.raises(IoError, match=r"m-00002-of-00003\.gguf"):
        GGUFFile.open(path)


@pytest.mark.parametrize("name", ["renamed.gguf", "m-00002-of-00003.gguf", "m-00001-of-00004.gguf"])
def test_a_name_that_does_not_fit(tmp_path, name):
    write_shards(tmp_path).rename(tmp_path / name)
    with pytest.raises(InvalidModelFile, match=r"file 1 of 3 .*end in -00001-of-00003\.gguf"):
        GGUFFile.open(tmp_path / name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"split.no": 2},
        {"split.no": 0},
        {"split.count": 4},
        {"split.count": None},
        {"split.no": None},
    ],
)
def test_mixed_models(tmp_path, wrong):
    path = write_shards(tmp_path, change=lambda i: wrong if i == 1 else {})
    with pytest.raises(InvalidModelFile, match=r"split\.no"):
        GGUFFile.open(path)


def test_a_number_beyond_the_count(tmp_path):
    path = write_shards(tmp_path, change=lambda i: {"split.no": 3} if i == 0 else {})
    with pytest.raises(InvalidModelFile, match=r"split\.no is 3, expected 0 to 2"):
        GGUFFile.open(path)


def test_too_few_tensors(tmp_path):
    with pytest.raises(InvalidModelFile, match=r"split\.tensors\.count is 7, .* have 3 tensors"):
        GGUFFile.open(write_shards(tmp_path, total=7))


def test_a_tensor_in_two_files(tmp_path):
    path = write_shards(tmp_path, 2)
    writer = GGUFWriter(shard_path(tmp_path, 2, 2))
    writer.add("split.no", 1, ValueKind.UINT16)
    writer.add("split.count", 2, ValueKind.UINT16)
    writer.add_tensor("t0", (1,), GGMLType.F32, np.ones(1, np.float32))
    writer.write()
    with pytest.raises(InvalidModelFile, match="'t0' is in another file of the split too"):
        GGUFFile.open(path)


def test_a_hostile_count_opens_no_other_file(tmp_path, monkeypatch):
    """65535 files, none of which exists: the first missing one ends it."""
    from rocmforge.gguf import reader

    path = shard_path(tmp_path, 1, 65535)
    writer = GGUFWriter(path)
    writer.add("split.no", 0, ValueKind.UINT16)
    writer.add("split.count", 65535, ValueKind.UINT16)
    writer.write()
    opened = []
    original = reader._open_shard
    monkeypatch.setattr(
        reader, "_open_shard", lambda *given: opened.append(given) or original(*given)
    )
    with pytest.raises(IoError, match="m-00002-of-65535"):
        GGUFFile.open(path)
    assert len(opened) == 2
