"""Decoders against those of the gguf package, bit for bit, on random blocks and odd scales."""

from __future__ import annotations

import tracemalloc
import warnings

import gguf
import numpy as np
import pytest

from rocmforge.errors import InvalidTensorShape
from rocmforge.quant.formats import FORMATS, GGMLType
from rocmforge.quant.reference import decode
from tests.support.quant_blocks import (
    BLOCK_TYPES,
    BYTE_SCALES,
    F16_SCALES,
    SCALE_FIELDS,
    random_blocks,
    set_scale,
)

# The package decodes neither: they are what activations are quantised to, and stand by hand in
# test_decoders_by_hand.py. Q1_0 has a row in the package's table, but no decoder.
WITHOUT_ORACLE = {"Q8_1", "Q8_K", "Q1_0"}
COMPARED = sorted(set(BLOCK_TYPES) - WITHOUT_ORACLE)
N_BLOCKS = 600


def by_package(type_name, blocks):
    """float32 [N, block_size]."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gguf.dequantize(blocks, gguf.GGMLQuantizationType[type_name])


def ours(type_name, blocks):
    type_ = GGMLType[type_name]
    size = FORMATS[type_].block_size
    return decode(type_, blocks.tobytes(), len(blocks) * size).reshape(-1, size)


def assert_same_bits(values, expected):
    assert values.dtype == expected.dtype == np.float32
    assert np.array_equal(np.isnan(values), np.isnan(expected))
    numbers = ~np.isnan(values)
    assert np.array_equal(values[numbers].view(np.uint32), expected[numbers].view(np.uint32))


def test_which_types_the_package_lacks():
    from gguf import quants

    known = {type_.name for type_ in quants._type_traits}
    assert set(BLOCK_TYPES) - known == WITHOUT_ORACLE


@pytest.mark.parametrize("type_name", COMPARED)
def test_random_blocks(type_name):
    blocks = random_blocks(type_name, N_BLOCKS)
    values = ours(type_name, blocks)
    assert np.isfinite(values).all()
    assert_same_bits(values, by_package(type_name, blocks))


@pytest.mark.parametrize("scale", F16_SCALES)
@pytest.mark.parametrize("type_name", sorted({*SCALE_FIELDS, "IQ1_M"} - WITHOUT_ORACLE))
def test_odd_scales(type_name, scale):
    for field in range(len(SCALE_FIELDS.get(type_name, (0,)))):
        blocks = random_blocks(type_name, 40, seed=1 + field)
        set_scale(blocks, type_name, F16_SCALES[scale], field)
        assert_same_bits(ours(type_name, blocks), by_package(type_name, blocks))


@pytest.mark.parametrize("type_name", BYTE_SCALES)
def test_every_byte_as_scale(type_name):
    blocks = random_blocks(type_name, 256)
    blocks[:, : BYTE_SCALES[type_name]] = np.arange(256, dtype=np.uint8)[:, None]
    assert_same_bits(ours(type_name, blocks), by_package(type_name, blocks))


@pytest.mark.parametrize("type_name", ["F32", "F16", "F64", "I8", "I16", "I32", "I64"])
def test_plain_numbers(type_name):
    form = FORMATS[GGMLType[type_name]]
    kind = type_name[0].lower().replace("f", "<f").replace("i", "<i")
    raw = np.random.default_rng(1).integers(0, 256, 4096 * form.block_bytes, np.uint8)
    numbers = raw.view(f"{kind}{form.block_bytes}")
    with np.errstate(all="ignore"):
        expected = numbers.astype(np.float32)
    assert_same_bits(ours(type_name, raw.reshape(-1, form.block_bytes)).reshape(-1), expected)


def test_every_bf16():
    raw = np.arange(65536, dtype="<u2").view(np.uint8).reshape(-1, 2)
    assert_same_bits(ours("BF16", raw), by_package("BF16", raw))


def test_every_f16():
    raw = np.arange(65536, dtype="<u2").view(np.uint8).reshape(-1, 2)
    halves = raw.view("<f2").astype(np.float32)
    assert_same_bits(ours("F16", raw), halves)


def test_bytes_of_every_kind_of_buffer():
    raw = random_blocks("Q8_0", 3)
    expected = decode(GGMLType.Q8_0, raw.tobytes(), 96)
    for data in (bytearray(raw.tobytes()), memoryview(raw.tobytes()), raw.reshape(-1)):
        assert np.array_equal(decode(GGMLType.Q8_0, data, 96), expected)
    assert decode(GGMLType.Q8_0, b"", 0).shape == (0,)


@pytest.mark.parametrize("n_values", [0, 64, 128, 31])
def test_length_that_does_not_fit(n_values):
    with pytest.raises(InvalidTensorShape):
        decode(GGMLType.Q8_0, bytes(3 * 34), n_values)


@pytest.mark.parametrize("type_name", ["Q4_K", "IQ1_M", "TQ1_0"])
def test_working_memory_is_bounded(type_name):
    n_blocks = 1 << 13
    data = random_blocks(type_name, n_blocks).tobytes()
    n_values = n_blocks * 256
    tracemalloc.start()
    try:
        decode(GGMLType[type_name], data, n_values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The result, and a dozen float32 copies of the 2^18 values that are decoded at a time.
    assert peak < 4 * n_values + 12 * 4 * (1 << 18)
