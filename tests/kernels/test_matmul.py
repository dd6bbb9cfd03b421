"""Every format × shape × ISA against the numpy reference, and bit for bit among themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocmforge.backends.cpu import KERNEL_TYPES
from rocmforge.backends.ops import TensorSource
from rocmforge.backends.select import available_isas
from rocmforge.quant.formats import FORMATS, GGMLType, row_bytes
from tests.support.kernel_bench import cpu, one_sequence, reference, run, source, table, vector
from tests.support.rounding import assert_within, matmul_bound

FLOAT_TYPES = ("F32", "F16", "BF16")
DECODED_TYPES = ("Q2_K", "IQ3_S")
SUPER_BLOCK = ("Q4_K", "Q5_K", "Q6_K")


def product(x, w, bias=None):
    return [table(x), w, *([] if bias is None else [vector("bias", bias)])]


def multiply(ops, weights, x):
    return ops.matmul(x, weights["w"], weights.get("bias"))


def check(type_name, rows, cols, n_tokens, with_bias, isa, seed=0):
    rng = np.random.default_rng([seed, rows, cols, n_tokens])
    x = rng.standard_normal((n_tokens, cols)).astype(np.float32)
    w = source("w", type_name, rng.standard_normal((rows, cols)).astype(np.float32))
    bias = rng.standard_normal(rows).astype(np.float32) if with_bias else None
    step = [one_sequence(n_tokens)]
    is_float = type_name in (*FLOAT_TYPES, *DECODED_TYPES)
    (expected,) = run(reference(exact=is_float), product(x, w, bias), multiply, step)
    (got,) = run(cpu(isa), product(x, w, bias), multiply, step)
    assert_within(got, expected, matmul_bound(x, w, 0.0 if bias is None else bias))


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("type_name", [*KERNEL_TYPES, *DECODED_TYPES])
def test_against_the_reference(type_name, isa):
    for rows in (1, 3, 8, 9, 64, 131):
        for n_tokens in (1, 2, 3, 5, 8, 17, 33):
            check(type_name, rows, 512, n_tokens, rows % 2 == 0, isa)


@pytest.mark.parametrize("type_name", KERNEL_TYPES)
def test_columns(type_name):
    step = FORMATS[GGMLType[type_name]].block_size
    for n_blocks in (1, 2, 3, 5, 8):
        check(type_name, 10, step * n_blocks, 3, True, "auto", seed=n_blocks)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*KERNEL_TYPES, *DECODED_TYPES]),
    st.integers(1, 70),
    st.integers(1, 4),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from(available_isas()),
    st.integers(0, 2**32),
)
def test_any_shape(type_name, rows, n_blocks, n_tokens, with_bias, isa, seed):
    check(type_name, rows, 256 * n_blocks, n_tokens, with_bias, isa, seed)


@pytest.mark.parametrize("type_name", KERNEL_TYPES)
def test_a_row_is_the_same_alone_in_any_batch_on_any_isa_with_any_threads(type_name):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((17, 512)).astype(np.float32)
    w = source("w", type_name, rng.standard_normal((75, 512)).astype(np.float32))
    (together,) = run(cpu("scalar", 1), product(x, w), multiply, [one_sequence(17)])
    for isa in available_isas():
        for n_threads in (1, 2, 4):
            (same,) = run(cpu(isa, n_threads), product(x, w), multiply, [one_sequence(17)])
            assert np.array_equal(same, together)
        for first, n in ((0, 1), (3, 2), (5, 3), (9, 4), (10, 7)):
            part = [table(x[first : first + n]), w]
            (alone,) = run(cpu(isa), part, multiply, [one_sequence(n)])
            assert np.array_equal(alone, together[first : first + n])


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0", *SUPER_BLOCK])
def test_every_bit_of_a_block_counts(type_name):
    """Random bytes in all integer fields: largest quants, scales and minima included."""
    rng = np.random.default_rng(2)
    type_ = GGMLType[type_name]
    size = row_bytes(type_, 256)
    raw = rng.integers(0, 256, (24, size), dtype=np.uint8)
    raw[:4] = 255
    raw[4:8] = 0
    halves = np.frombuffer(np.float16([0.01, -0.02, 3.0]).tobytes(), np.uint8).reshape(3, 2)
    n_blocks = 256 // (256 if "_K" in type_name else 32)
    for row in range(24):
        for block in range(n_blocks):
            start = block * (size // n_blocks)
            places = {"Q6_K": [208], "Q4_K": [0, 2], "Q5_K": [0, 2]}.get(type_name, [0])
            for place in places:
                raw[row, start + place : start + place + 2] = halves[(row + place) % 3]
    w = TensorSource("w", type_, (24, 256), memoryview(raw.tobytes()))
    x = rng.standard_normal((5, 256)).astype(np.float32)
    x[1] = 127.0  # every activation at its largest: the sums of products too
    x[2] = -127.0
    (expected,) = run(reference(), product(x, w), multiply, [one_sequence(5)])
    for isa in available_isas():
        (got,) = run(cpu(isa), product(x, w), multiply, [one_sequence(5)])
        assert_within(got, expected, matmul_bound(x, w))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type_name", KERNEL_TYPES)
def test_what_is_not_finite_is_not_hidden(type_name, bad):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 256)).astype(np.float32)
    x[1, 100] = bad
    w = source("w", type_name, rng.standard_normal((9, 256)).astype(np.float32))
    (got,) = run(cpu(), product(x, w), multiply, [one_sequence(3)])
    assert not np.isfinite(got[1]).any()
    assert np.isfinite(got[[0, 2]]).all()


def test_zeros():
    for type_name in KERNEL_TYPES:
        w = source("w", type_name, np.zeros((9, 256), np.float32))
        (got,) = run(cpu(), product(np.zeros((2, 256)), w), multiply, [one_sequence(2)])
        assert (got == 0).all()
