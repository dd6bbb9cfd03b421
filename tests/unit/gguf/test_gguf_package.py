"""Against the gguf package: we read what it writes, it reads what we write."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from rocmforge.gguf.metadata import ValueKind
from rocmforge.gguf.reader import GGUFFile
from rocmforge.gguf.writer import GGUFWriter
from rocmforge.quant.encode import encode
from rocmforge.quant.formats import FORMATS, GGMLType
from tests.support.quant_blocks import random_blocks

SCALARS = {
    ValueKind.UINT8: 255,
    ValueKind.INT8: -128,
    ValueKind.UINT16: 65535,
    ValueKind.INT16: -32768,
    ValueKind.UINT32: 2**32 - 1,
    ValueKind.INT32: -(2**31),
    ValueKind.FLOAT32: 0.1,
    ValueKind.BOOL: True,
    ValueKind.STRING: "naïve 日本 \0 end",
    ValueKind.UINT64: 2**64 - 1,
    ValueKind.INT64: -(2**63),
    ValueKind.FLOAT64: 0.1,
}
WORDS = ["", "a", "Ġhello", "日本語", "x" * 300]


def tensor_data(name):
    """(shape in numpy order, the bytes) of two rows of two blocks."""
    form = FORMATS[GGMLType[name]]
    raw = random_blocks(name, 4, seed=2) if form.block_size > 1 else random_blocks("Q8_0", 4)
    return (2, 2 * form.block_size), raw.reshape(-1)[: 4 * form.block_bytes].tobytes()


# The package has a wrong size for Q8_1 (see tests/unit/quant/test_formats.py).
STORED = [form.name for form in FORMATS.values() if form.name != "Q8_1"]


def write_by_package(path):
    writer = gguf.GGUFWriter(path, "llama")
    for kind, value in SCALARS.items():
        writer.add_key_value(f"scalar.{kind.name}", value, gguf.GGUFValueType[kind.name])
    writer.add_array("array.words", WORDS)
    writer.add_array("array.numbers", [1, 2, 3])
    writer.add_array("array.floats", [0.5, -1.5])
    writer.add_array("array.flags", [True, False])
    for name in STORED:
        shape, data = tensor_data(name)
        rows = np.frombuffer(data, np.uint8).reshape(shape[0], -1)
        writer.add_tensor(f"t.{name}", rows, raw_dtype=gguf.GGMLQuantizationType[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_ours(path, alignment=32):
    writer = GGUFWriter(path, "llama", alignment=alignment)
    for kind, value in SCALARS.items():
        writer.add(f"scalar.{kind.name}", value, kind)
    writer.add("array.words", WORDS)
    writer.add("array.numbers", [1, 2, 3], ValueKind.INT32)
    writer.add("array.floats", [0.5, -1.5])
    writer.add("array.flags", [True, False])
    for name in STORED:
        shape, data = tensor_data(name)
        writer.add_tensor(f"t.{name}", shape, GGMLType[name], data)
    writer.write()


def package_value(field):
    value = field.contents()
    return value if isinstance(value, str | list) else np.asarray(value).item()


@pytest.mark.parametrize("write", [write_by_package, write_ours])
def test_both_readers_find_the_same(tmp_path, write):
    path = tmp_path / "m.gguf"
    write(path)
    theirs = gguf.GGUFReader(path)
    with GGUFFile.open(path) as ours:
        keys = [key for key in theirs.fields if not key.startswith("GGUF.")]
        assert list(ours.metadata) == keys
        for key in keys:
            value = ours.metadata[key]
            value = value.tolist() if isinstance(value, np.ndarray) else value
            assert value == package_value(theirs.fields[key]), key
        assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
        for tensor in theirs.tensors:
            info = ours.tensors[tensor.name]
            assert info.type.name == tensor.tensor_type.name
            assert list(info.shape) == tensor.shape.tolist()[::-1]
            assert (info.n_bytes, info.start) == (tensor.n_bytes, tensor.data_offset)
            assert bytes(ours.tensor_bytes(info.name)) == tensor.data.tobytes()


@pytest.mark.parametrize("write", [write_by_package, write_ours])
def test_what_was_written_is_found(tmp_path, write):
    path = tmp_path / "m.gguf"
    write(path)
    with GGUFFile.open(path) as file:
        metadata = file.metadata
        for kind, value in SCALARS.items():
            rounded = float(np.float32(value)) if kind is ValueKind.FLOAT32 else value
            assert metadata[f"scalar.{kind.name}"] == rounded
        assert metadata["general.architecture"] == "llama"
        assert list(metadata["array.words"]) == WORDS
        assert metadata["array.numbers"].tolist() == [1, 2, 3]
        assert metadata["array.floats"].tolist() == [0.5, -1.5]
        assert metadata["array.flags"].tolist() == [True, False]
        for name in STORED:
            shape, data = tensor_data(name)
            assert file.tensors[f"t.{name}"].shape == shape
            assert bytes(file.tensor_bytes(f"t.{name}")) == data


def test_alignment_of_our_files(tmp_path):
    write_ours(tmp_path / "m.gguf", alignment=4096)
    theirs = gguf.GGUFReader(tmp_path / "m.gguf")
    with GGUFFile.open(tmp_path / "m.gguf") as ours:
        assert ours.alignment == theirs.alignment == 4096
        assert all(tensor.data_offset % 4096 == 0 for tensor in theirs.tensors)
        for tensor in theirs.tensors:
            assert bytes(ours.tensor_bytes(tensor.name)) == tensor.data.tobytes()


def test_the_package_decodes_what_we_encode(tmp_path):
    values = np.random.default_rng(4).standard_normal((4, 512)).astype(np.float32)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    for name in ("Q8_0", "Q4_0", "Q4_K", "Q6_K"):
        writer.add_tensor(name, values.shape, GGMLType[name], encode(GGMLType[name], values))
    writer.write()
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        found = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert found.shape == values.shape
        # Standard normal values lie within ±4; a level of Q4_0, the coarsest, is then below 0.5.
        assert np.abs(found - values).max() < 0.5, tensor.name


def test_a_big_endian_file_of_the_package(tmp_path):
    from rocmforge.errors import UnsupportedModelFormat

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelFormat, match="big-endian GGUF file; convert it"):
        GGUFFile.open(tmp_path / "m.gguf")
