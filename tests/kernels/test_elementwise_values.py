"""Rotation, SwiGLU and embedding value by value, against float64 and a decoder we did not write."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from rocmforge.backends.ops import TensorSource
from rocmforge.backends.select import available_isas
from rocmforge.quant.formats import FORMATS, GGMLType
from tests.support.kernel_bench import KV, cpu, one_sequence, run
from tests.support.quant_blocks import random_blocks
from tests.support.rounding import UNIT, assert_same_bits, assert_within, float_matrix

ISAS = pytest.mark.parametrize("isa", available_isas())
KERNEL_BLOCKS = ("Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K")


@ISAS
@pytest.mark.parametrize("type_name", [*KERNEL_BLOCKS, "Q4_1", "Q5_0", "Q2_K", "Q3_K", "IQ4_XS"])
def test_embedding_decodes_as_the_gguf_package_does(isa, type_name):
    type_, rows, cols = GGMLType[type_name], 37, 512
    blocks = random_blocks(type_name, rows * cols // FORMATS[type_].block_size)
    table = TensorSource("x", type_, (rows, cols), memoryview(blocks.tobytes()))
    (got,) = run(cpu(isa), [table], lambda ops, weights, x: x, [one_sequence(rows)])
    expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType[type_name])
    assert np.array_equal(got, expected.reshape(rows, cols))


def swiglu(isa, gate, up):
    def forward(ops, weights, x):
        return ops.swiglu(ops.scale(x, 1.0), ops.embed(weights["up"]))

    tensors = [float_matrix("x", gate), float_matrix("up", up)]
    return run(cpu(isa), tensors, forward, [one_sequence(len(gate))])[0]


def silu(gate):
    wide = gate.astype(np.float64)
    with np.errstate(over="ignore"):  # divided by infinity: zero
        return wide / (1 + np.exp(-wide))


@ISAS
def test_silu_over_the_whole_range(isa):
    steps = np.linspace(-110, 110, 200_001)
    gate = np.concatenate(
        [steps, 10.0 ** np.linspace(-30, 4, 4096), -(10.0 ** np.linspace(-30, 4, 4096))]
    )
    gate = np.resize(gate, (13, 16_384)).astype(np.float32)
    expected = silu(gate)
    # The exponential (below 6), its sum with one, the division, the product with 1.
    bound = (6 + 3) * UNIT * (1 + 2.0**-10) * np.abs(expected)
    # e^-gate stops at e^88, so that silu of less is -|gate| / e^88 and not 0.
    bound += np.abs(gate.astype(np.float64)) * np.exp(-87.9)
    assert_within(swiglu(isa, gate, np.ones_like(gate)), expected, bound)


@ISAS
def test_swiglu_multiplies_with_up(isa):
    rng = np.random.default_rng(1)
    gate = rng.normal(size=(5, 77)).astype(np.float32)
    up = (rng.normal(size=(5, 77)) * 100).astype(np.float32)
    alone = swiglu(isa, gate, np.ones_like(gate))
    assert_same_bits(swiglu(isa, gate, up), alone * up)


@ISAS
def test_swiglu_keeps_what_is_not_finite(isa):
    gate = np.array([[np.nan, 1, np.inf, 1, -100, 100, 0, -0.0]], np.float32)
    up = np.array([[1, np.nan, 1, np.inf, 3, 3, 3, 3]], np.float32)
    got = swiglu(isa, gate, up)[0]
    assert np.isnan(got[:2]).all()
    assert (got[2:4] == np.inf).all()
    assert got[4] <= 0
    assert got[5] == 300
    assert (got[6:] == 0).all()


@ISAS
@pytest.mark.parametrize("kind", ["norm", "neox"])
@pytest.mark.parametrize(("n_heads", "dim", "rope_dim"), [(2, 64, 64), (3, 80, 32), (1, 8, 2)])
@pytest.mark.parametrize("magnitude", [1.0, 1.3])
def test_rotation_of_each_pair(isa, kind, n_heads, dim, rope_dim, magnitude):
    n_tokens, half = 5, rope_dim // 2
    inv_freq = (10000.0 ** (-np.arange(half) / half)).astype(np.float32)
    x = np.random.default_rng(2).normal(size=(n_tokens, n_heads * dim)).astype(np.float32)

    def forward(ops, weights, x):
        return ops.rope(x, n_heads, dim, rope_dim, kind, inv_freq, magnitude)

    for start in (0, 1, 4095, 100_000):
        step = one_sequence(n_tokens, start=start)
        (got,) = run(cpu(isa), [float_matrix("x", x)], forward, [step], cache_for(start + n_tokens))
        heads = x.astype(np.float64).reshape(n_tokens, n_heads, dim)
        result = got.reshape(heads.shape)
        # What is not rotated keeps its bits.
        assert_same_bits(result[:, :, rope_dim:], heads[:, :, rope_dim:].astype(np.float32))
        # The contract: the angle is rounded to float32, cosine and sine are of that angle.
        angles = (step.positions[:, None] * inv_freq.astype(np.float64)).astype(np.float32)
        turn = magnitude * np.exp(1j * angles.astype(np.float64))[:, None, :]
        pairs = (heads[..., 0:rope_dim:2], heads[..., 1:rope_dim:2])
        found = (result[..., 0:rope_dim:2], result[..., 1:rope_dim:2])
        if kind == "neox":
            pairs = (heads[..., :half], heads[..., half:rope_dim])
            found = (result[..., :half], result[..., half:rope_dim])
        rotated = (pairs[0] + 1j * pairs[1]) * turn
        # Table, magnitude, product, sum: four roundings of both terms.
        size = np.abs(pairs[0]) * np.abs(turn.real) + np.abs(pairs[1]) * np.abs(turn.imag)
        across = np.abs(pairs[0]) * np.abs(turn.imag) + np.abs(pairs[1]) * np.abs(turn.real)
        factor = 4 * UNIT * (1 + 2.0**-10)
        assert_within(found[0], rotated.real, factor * size)
        assert_within(found[1], rotated.imag, factor * across)


def cache_for(n_positions):
    return type(KV)(**(vars(KV) | {"n_blocks": -(-n_positions // KV.block_tokens)}))
