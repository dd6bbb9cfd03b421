"""matmul on blocks that no encoder of ours would write: any bytes, extremes, foreign encoders."""

from __future__ import annotations

import zlib

import gguf
import numpy as np
import pytest

from rocmforge.backends.cpu import KERNEL_TYPES
from rocmforge.backends.ops import TensorSource
from rocmforge.backends.select import available_isas
from rocmforge.quant.formats import FORMATS, GGMLType, row_bytes
from rocmforge.quant.reference import decode
from tests.support.kernel_bench import (
    cpu,
    one_sequence,
    random_matrix,
    reference,
    run,
    source,
    table,
)
from tests.support.quant_blocks import BLOCK_TYPES, BYTE_SCALES, SCALE_FIELDS
from tests.support.rounding import (
    ACTIVATION_BLOCKS,
    UNIT,
    assert_same_bits,
    assert_within,
    float_matrix,
    matmul_bound,
    weight_magnitudes,
)

BATCHES = (1, 2, 3, 4, 5, 8, 11, 12, 17, 35, 50)
QUANTIZED = tuple(ACTIVATION_BLOCKS)
DECODED = [name for name in BLOCK_TYPES if name not in KERNEL_TYPES]
ISAS = pytest.mark.parametrize("isa", available_isas())


def rng_for(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def activations(cols):
    """50 rows of very different sizes, one with an outlier, the last one of zeros."""
    rng = rng_for(cols)
    x = rng.normal(size=(50, cols)) * 10.0 ** rng.uniform(-3, 2, (50, 1))
    x[1, 0] *= 50
    x[-1] = 0
    return x.astype(np.float32)


def multiply(ops, weights, x):
    return ops.matmul(x, weights["w"])


def product(backend, x, w, steps=None):
    return run(backend, [table(x), w], multiply, steps or [one_sequence(len(x))])


@ISAS
@pytest.mark.parametrize("type_name", QUANTIZED)
@pytest.mark.parametrize("n_super_blocks", [1, 2, 5])
def test_any_bytes_in_any_batch(isa, type_name, n_super_blocks):
    cols = 256 * n_super_blocks
    x = activations(cols)
    for rows in (1, 3, 8, 9, 64, 131):
        w = random_matrix("w", type_name, rows, cols)
        (expected,) = product(reference(), x, w)
        batches = product(cpu(isa), x, w, [one_sequence(n) for n in BATCHES])
        assert_within(batches[-1], expected, matmul_bound(x, w))
        for n_tokens, got in zip(BATCHES, batches, strict=True):
            assert_same_bits(got, batches[-1][:n_tokens])


@ISAS
@pytest.mark.parametrize("type_name", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q4_1"])
def test_bytes_of_the_gguf_package(isa, type_name):
    values = rng_for(type_name).normal(size=(19, 512)).astype(np.float32)
    data = gguf.quantize(values, gguf.GGMLQuantizationType[type_name]).tobytes()
    w = TensorSource("w", GGMLType[type_name], values.shape, memoryview(data))
    x = activations(512)
    (expected,) = product(reference(), x, w)
    (got,) = product(cpu(isa), x, w)
    assert_within(got, expected, matmul_bound(x, w))


@ISAS
@pytest.mark.parametrize("type_name", QUANTIZED)
def test_rounding_of_activations_costs_half_a_level_at_most(isa, type_name):
    w = source("w", type_name, rng_for(type_name).normal(size=(64, 1024)).astype(np.float32))
    x = activations(1024)
    (exact,) = product(reference(exact=True), x, w)
    (got,) = product(cpu(isa), x, w)
    block = ACTIVATION_BLOCKS[type_name]
    levels = np.abs(x.astype(np.float64)).reshape(len(x), -1, block).max(-1) / 127
    decoded = decode(w.type, bytes(w.data), got.shape[1] * 1024).astype(np.float64)
    per_block = np.abs(decoded.reshape(got.shape[1], -1, block)).sum(-1)
    # The scale, its inverse and the product are rounded before a value is: a level number of at
    # most 127 is off by three units more than the half.
    half = 0.5 + 127 * 3 * UNIT
    assert_within(got, exact, half * levels @ per_block.T + matmul_bound(x, w))


@ISAS
@pytest.mark.parametrize("type_name", DECODED)
def test_other_types_are_decoded_and_multiplied_as_floats(isa, type_name):
    rows, cols = 19, 512
    x = activations(cols)
    w = random_matrix("w", type_name, rows, cols)
    decoded = float_matrix("w", decode(w.type, bytes(w.data), rows * cols).reshape(rows, cols))
    (expected,) = product(reference(), x, w)
    (got,) = product(cpu(isa), x, w)
    assert_within(got, expected, matmul_bound(x, decoded))
    assert_same_bits(got, product(cpu(isa), x, decoded)[0])


@pytest.mark.parametrize("type_name", ["Q3_K", "IQ3_S", "Q2_K"])
def test_large_tensors_are_decoded_in_pieces(monkeypatch, type_name):
    rows, cols = 131, 512
    x = activations(cols)
    w = random_matrix("w", type_name, rows, cols)
    (whole,) = product(cpu(), x, w)
    monkeypatch.setattr("rocmforge.backends.cpu._DECODE_VALUES", 20 * cols)
    assert_same_bits(product(cpu(), x, w)[0], whole)


def filled_matrix(type_name, rows, cols, fill):
    """Every byte is `fill`, every scale 1."""
    type_ = GGMLType[type_name]
    blocks = np.full(rows * row_bytes(type_, cols), fill, np.uint8)
    blocks = blocks.reshape(-1, FORMATS[type_].block_bytes)
    if type_name in BYTE_SCALES:
        blocks[:, 0] = 127  # 2^0
    for start, dtype in SCALE_FIELDS.get(type_name, ()):
        one = np.array([1.0], dtype).view(np.uint8)
        blocks[:, start : start + len(one)] = one
    return TensorSource("w", type_, (rows, cols), memoryview(blocks.tobytes()))


@ISAS
@pytest.mark.parametrize("type_name", QUANTIZED)
@pytest.mark.parametrize("fill", [0x00, 0x0F, 0x7F, 0x80, 0xF0, 0xFF])
def test_the_largest_integer_sums_do_not_overflow(isa, type_name, fill):
    """Quants, scales and activations at their extremes, all of one sign or alternating."""
    w = filled_matrix(type_name, 9, 512, fill)
    x = np.ones((3, 512), np.float32)
    x[1] = -1
    x[2, ::2] = -1
    (expected,) = product(reference(), x, w)
    (got,) = product(cpu(isa), x, w)
    assert_within(got, expected, matmul_bound(x, w))


@ISAS
@pytest.mark.parametrize("type_name", QUANTIZED)
def test_tiny_and_huge_activations(isa, type_name):
    powers = np.array([[-45, -38, -37, -36, -30, 20, 30, 34]], np.float32).T
    x = rng_for("tiny").normal(size=(8, 512)).astype(np.float32) * np.float32(10) ** powers
    w = source("w", type_name, rng_for(type_name).normal(size=(9, 512)).astype(np.float32))
    (exact,) = product(reference(exact=True), x, w)
    (got,) = product(cpu(isa), x, w)
    block = ACTIVATION_BLOCKS[type_name]
    peaks = np.abs(x.astype(np.float64)).reshape(8, -1, block).max(-1)
    sizes = weight_magnitudes(w).reshape(9, -1, block).sum(-1)
    # A block whose peak is below 2^-121 counts as zeros, as its scale cannot be inverted; the
    # others lose at most one level, of which a half covers all float32 rounding many times over.
    lost = np.where(peaks <= 2.0**-121, peaks, peaks / 127)
    assert_within(got, exact, lost @ sizes.T + 2.0**-120)
    assert_same_bits(got, product(cpu("scalar"), x, w)[0])
