"""Damaged and hostile headers: each is refused with the field's name, before memory is taken."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from rocmforge.errors import InvalidModelFile, UnsupportedModelFormat
from rocmforge.gguf.header import MAX_KEYS, MAX_TENSORS
from rocmforge.gguf.metadata import ValueKind
from rocmforge.gguf.reader import GGUFFile
from tests.support import raw_gguf as raw

HUGE = [2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


def refused(tmp_path, data, match, error=InvalidModelFile):
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(error, match=match):
            GGUFFile.open(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + (1 << 20)
    finally:
        tracemalloc.stop()


def floats(count):
    return bytes(4 * count)


@pytest.mark.parametrize("value", HUGE)
class TestHugeNumbers:
    def test_key_count(self, tmp_path, value):
        refused(tmp_path, raw.gguf(n_keys=value), "key count")

    def test_tensor_count(self, tmp_path, value):
        refused(tmp_path, raw.gguf(n_tensors=value), "tensor count")

    def test_key_length(self, tmp_path, value):
        data = raw.gguf([struct.pack("<Q", value) + bytes(100)])
        refused(tmp_path, data, f"key 0: a name of {value} bytes")

    def test_string_length(self, tmp_path, value):
        entry = raw.entry("k", ValueKind.STRING, struct.pack("<Q", value) + bytes(100))
        refused(tmp_path, raw.gguf([entry]), rf"metadata key 'k' needs {value} bytes")

    @pytest.mark.parametrize("kind", list(ValueKind))
    def test_array_count(self, tmp_path, value, kind):
        entry = raw.entry("k", ValueKind.ARRAY, raw.array(kind, value, bytes(100)))
        refused(tmp_path, raw.gguf([entry]), f"item count of metadata key 'k' {value}")

    def test_length_of_a_string_in_an_array(self, tmp_path, value):
        strings = raw.text("fine") + struct.pack("<Q", value) + bytes(100)
        entry = raw.entry("k", ValueKind.ARRAY, raw.array(ValueKind.STRING, 3, strings))
        refused(tmp_path, raw.gguf([entry]), "metadata key 'k' needs")

    def test_dimension(self, tmp_path, value):
        data = raw.gguf([], [raw.tensor("t", [32, value])], floats(64))
        refused(tmp_path, data, r"'t' (has the impossible dimensions|ends at byte)")

    def test_offset(self, tmp_path, value):
        data = raw.gguf([], [raw.tensor("t", [4], offset=value & ~31)], floats(64))
        refused(tmp_path, data, "'t' ends at byte")

    def test_tensor_name_length(self, tmp_path, value):
        data = raw.gguf([], [struct.pack("<Q", value) + bytes(100)])
        refused(tmp_path, data, f"tensor 0: a name of {value} bytes")


def test_dimensions_whose_product_overflows(tmp_path):
    for sizes in ([2**32, 2**32], [2**33, 2**31, 2], [2**16] * 4):
        data = raw.gguf([], [raw.tensor("t", sizes)], floats(64))
        refused(tmp_path, data, "'t' has the impossible dimensions")


def test_dimension_of_zero(tmp_path):
    refused(tmp_path, raw.gguf([], [raw.tensor("t", [4, 0])], floats(4)), "impossible dimensions")


@pytest.mark.parametrize("n_dims", [0, 5, 2**32 - 1])
def test_number_of_dimensions(tmp_path, n_dims):
    data = raw.gguf([], [raw.tensor("t", [4], n_dims=n_dims)], floats(64))
    refused(tmp_path, data, f"'t' has {n_dims} dimensions")


def test_limits_on_counts(tmp_path):
    refused(tmp_path, raw.gguf(n_keys=MAX_KEYS + 1, data=bytes(1 << 20)), "limit")
    refused(tmp_path, raw.gguf(n_tensors=MAX_TENSORS + 1, data=bytes(10 << 20)), "limit")


def test_unknown_value_kind(tmp_path):
    refused(tmp_path, raw.gguf([raw.entry("k", 13, bytes(8))]), "'k' has the unknown value kind 13")


def test_boolean_of_seven(tmp_path):
    refused(tmp_path, raw.gguf([raw.entry("k", ValueKind.BOOL, b"\7")]), "'k' has a boolean")
    items = raw.array(ValueKind.BOOL, 2, b"\1\2")
    refused(tmp_path, raw.gguf([raw.entry("k", ValueKind.ARRAY, items)]), "'k' has a boolean")


def test_keys(tmp_path):
    twice = [raw.u32_entry("k", 1), raw.u32_entry("k", 2)]
    refused(tmp_path, raw.gguf(twice), "metadata key 'k' appears twice")
    refused(tmp_path, raw.gguf([raw.u32_entry("", 1)]), "key 0: the name is empty")
    refused(tmp_path, raw.gguf([raw.u32_entry(b"\xff", 1)]), "key 0: the name .* is not UTF-8")


def test_tensor_names(tmp_path):
    twice = [raw.tensor("t", [4]), raw.tensor("t", [4], offset=32)]
    refused(tmp_path, raw.gguf([], twice, floats(64)), "tensor 't' appears twice")
    refused(tmp_path, raw.gguf([], [raw.tensor("", [4])], floats(4)), "tensor 0: the name is empty")


def test_depth_of_arrays(tmp_path):
    payload = raw.array(ValueKind.UINT8, 1, b"\1")
    for _ in range(1000):
        payload = raw.array(ValueKind.ARRAY, 1, payload)
    refused(tmp_path, raw.gguf([raw.entry("k", ValueKind.ARRAY, payload)]), "'k' is nested deeper")


def test_number_of_nested_arrays(tmp_path):
    empty = raw.array(ValueKind.UINT8, 0)
    half = raw.array(ValueKind.ARRAY, 40_000, empty * 40_000)
    both = raw.array(ValueKind.ARRAY, 2, half * 2)
    path = tmp_path / "x.gguf"
    path.write_bytes(raw.gguf([raw.entry("k", ValueKind.ARRAY, both)]))
    with pytest.raises(InvalidModelFile, match="more than 65536 arrays inside"):
        GGUFFile.open(path)


@pytest.mark.parametrize("value", [0, 1, 4, 33, 48, 2**31])
def test_alignment(tmp_path, value):
    refused(tmp_path, raw.gguf([raw.u32_entry("general.alignment", value)]), "general.alignment")


def test_alignment_that_is_no_integer(tmp_path):
    entry = raw.entry("general.alignment", ValueKind.STRING, raw.text("32"))
    refused(tmp_path, raw.gguf([entry]), "general.alignment is 32")


def test_offset_that_is_not_aligned(tmp_path):
    data = raw.gguf([], [raw.tensor("t", [4], offset=4)], floats(64))
    refused(tmp_path, data, "'t': offset 4 is no multiple of 32")


def test_overlap(tmp_path):
    tensors = [raw.tensor("a", [16]), raw.tensor("b", [16], offset=32)]
    refused(tmp_path, raw.gguf([], tensors, floats(64)), "data of tensors 'a' and 'b' overlap")
    tensors = [raw.tensor("a", [16]), raw.tensor("b", [16])]
    refused(tmp_path, raw.gguf([], tensors, floats(64)), "overlap")


def test_data_one_byte_short(tmp_path):
    data = raw.gguf([], [raw.tensor("t", [64])], floats(64))
    refused(tmp_path, data[:-1], "'t' ends at byte")


def test_rows_that_are_no_whole_blocks(tmp_path):
    data = raw.gguf([], [raw.tensor("t", [48, 2], type_=8)], floats(64))
    refused(tmp_path, data, "'t': rows of 48 values are no whole Q8_0 blocks of 32")


@pytest.mark.parametrize("type_", [4, 5, 31, 36, 38, 255, 2**32 - 1])
def test_unknown_tensor_type(tmp_path, type_):
    data = raw.gguf([], [raw.tensor("t", [32], type_=type_)], floats(64))
    refused(tmp_path, data, f"'t' has tensor type {type_}", UnsupportedModelFormat)


@pytest.mark.parametrize(
    ("version", "match"),
    [
        (0, "version 0"),
        (1, "version 1"),
        (4, "version 4"),
        (0x03000000, "big-endian"),
        (0x02000000, "big-endian"),
    ],
)
def test_versions(tmp_path, version, match):
    refused(tmp_path, raw.gguf(version=version), match, UnsupportedModelFormat)


def test_older_formats(tmp_path):
    refused(tmp_path, b"tjgg" + bytes(100), "convert the model to GGUF", UnsupportedModelFormat)


def test_every_truncation_of_a_header(tmp_path):
    words = raw.array(ValueKind.STRING, 2, raw.text("a") + raw.text("bc"))
    entries = [raw.u32_entry("k", 1), raw.entry("w", ValueKind.ARRAY, words)]
    data = raw.gguf(entries, [raw.tensor("t", [8])], floats(8))
    path = tmp_path / "x.gguf"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InvalidModelFile, match=r"byte \d+"):
            GGUFFile.open(path)
