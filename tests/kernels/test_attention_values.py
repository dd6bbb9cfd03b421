"""Attention value by value: every element within its own rounding, and nothing broken is hidden."""

from __future__ import annotations

import numpy as np
import pytest

from rocmforge.backends.ops import ATTENTION_SPLIT, KvGeometry, StepLimits
from rocmforge.backends.select import available_isas
from rocmforge.engine.step_plan import StepPlan
from tests.support.kernel_bench import cpu, one_sequence
from tests.support.rounding import UNIT, assert_same_bits, assert_within, float_matrix

ISAS = pytest.mark.parametrize("isa", available_isas())
KV_TYPES = pytest.mark.parametrize("kv_type", ["f16", "f32"])
# exp_lanes: 0.5 for the reduced argument, below 4 for the polynomial, 0.2 for its remainder.
EXP_ROUNDINGS = 6
N_BLOCKS = 24


def attend(backend, q, k, v, *, kv_type, scale, window=0, steps=None):
    """q [T, H, D], k and v [T, K, D] as they are: a projection would spread a NaN."""
    n_tokens, n_heads, head_dim = q.shape
    inputs = {"q": q, "k": k, "v": v}
    refs = backend.load_weights(
        [float_matrix(name, values.reshape(n_tokens, -1)) for name, values in inputs.items()]
    )

    def forward(ops):
        queries, keys, values = (ops.embed(refs[name]) for name in inputs)
        ops.kv_append(0, keys, values)
        out = ops.attention(0, queries, n_heads, scale, window)
        ops.output(ops.select_rows(out))

    kv = KvGeometry(
        n_layers=1,
        n_kv_heads=k.shape[1],
        head_dim=head_dim,
        n_blocks=N_BLOCKS,
        block_tokens=16,
        kv_type=kv_type,
    )
    limits = StepLimits(
        max_tokens=n_tokens, max_sequences=4, max_rows=n_tokens, max_blocks_per_sequence=N_BLOCKS
    )
    program = backend.create_program(forward, kv, limits)
    results = [program.run(step).copy() for step in steps or [one_sequence(n_tokens)]]
    program.close()
    backend.close()
    return np.concatenate(results).reshape(-1, n_heads, head_dim)


def inputs(n_tokens, n_heads, n_kv_heads, head_dim, gain=1.0):
    rng = np.random.default_rng([n_tokens, n_heads, n_kv_heads, head_dim])
    shapes = [(n_tokens, heads, head_dim) for heads in (n_heads, n_kv_heads, n_kv_heads)]
    q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return q * np.float32(gain), k, v


def stored(values, kv_type):
    """As the cache holds them, float64."""
    return values.astype(np.float16 if kv_type == "f16" else np.float32).astype(np.float64)


def exact_attention(q, k, v, kv_type, scale, window):
    """(result, bound) in float64, one query head after the other.

    A key's weight is e^(s - peak). Its score s is a sum in eight lanes, then of the lanes, then
    scaled: head_dim / 8 + 5 roundings of Σ|q·k|·scale, an absolute error of the exponent, which is
    a relative one of the weight; the exponential and its subtraction add their own. The mean over
    the keys sums products in a split (one rounding per key and one for the product), then
    combines the splits (an exponential, a product, a sum for the numerator and for the sum of
    weights, whose errors both count), and divides. To first order in UNIT; 1 + 2^-10 covers the
    others, as all these together stay below 2^-11.
    """
    n, n_heads, dim = q.shape
    group = n_heads // k.shape[1]
    out, bound = np.empty(q.shape), np.empty(q.shape)
    n_splits = -(-n // ATTENTION_SPLIT)
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    hidden = (distance < 0) | ((distance >= window) if window else False)
    for h in range(n_heads):
        keys, values = (stored(part[:, h // group], kv_type) for part in (k, v))
        queries = q[:, h].astype(np.float64)
        scores = np.where(hidden, -np.inf, queries @ keys.T * scale)
        depth = np.where(hidden, 0.0, scores.max(1, keepdims=True) - scores)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        score_error = (dim / 8 + 5) * (np.abs(queries) @ np.abs(keys).T) * scale
        splits = n_splits * (EXP_ROUNDINGS + 2) + depth.max(1, keepdims=True)
        roundings = score_error + depth + EXP_ROUNDINGS + ATTENTION_SPLIT + 2 + 2 * splits
        relative = UNIT * (1 + 2.0**-10) * roundings
        out[:, h] = weights @ values
        # Twice: the sum of weights carries the same errors.
        weight_errors = (weights * relative).sum(1, keepdims=True)
        bound[:, h] = (weights * relative) @ np.abs(values) + weight_errors * np.abs(out[:, h])
        # A weight below e^-87.3 counts as none.
        bound[:, h] += UNIT * np.abs(out[:, h]) + n * np.exp(-87.3) * np.abs(values).max()
    return out, bound


SHAPES = [(1, 1, 8), (2, 1, 32), (4, 1, 64), (8, 1, 128), (8, 4, 80), (7, 1, 16), (3, 3, 40)]


@ISAS
@KV_TYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n_tokens", [1, 15, 16, 17, 127, 128, 129, 300])
def test_each_value_is_within_its_own_rounding(isa, kv_type, shape, n_tokens):
    q, k, v = inputs(n_tokens, *shape)
    scale = float(np.float32(shape[2] ** -0.5))
    expected, bound = exact_attention(q, k, v, kv_type, scale, 0)
    assert_within(attend(cpu(isa), q, k, v, kv_type=kv_type, scale=scale), expected, bound)


@ISAS
@pytest.mark.parametrize("window", [1, 2, 16, 20, 127, 128, 129, 200, 400])
def test_windows(isa, window):
    q, k, v = inputs(300, 4, 2, 64)
    expected, bound = exact_attention(q, k, v, "f16", 0.125, window)
    got = attend(cpu(isa), q, k, v, kv_type="f16", scale=0.125, window=window)
    assert_within(got, expected, bound)


@ISAS
@pytest.mark.parametrize("gain", [0.0, 30.0, 1000.0])
def test_flat_and_steep_softmax(isa, gain):
    q, k, v = inputs(140, 4, 2, 32, gain)
    expected, bound = exact_attention(q, k, v, "f32", 0.25, 0)
    assert_within(attend(cpu(isa), q, k, v, kv_type="f32", scale=0.25), expected, bound)


@ISAS
def test_the_cache_rounds_to_f16_as_numpy_does(isa):
    """A token that sees only itself gives its value as stored: every f16, and the ties between."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[:-1] + halves[1:]) / 2
    values = np.concatenate([halves, middles, np.nextafter(middles, np.float32(0)), -middles])
    v = np.resize(values, (-(-len(values) // 8192), 1, 8192)).astype(np.float32)
    zeros = np.zeros_like(v)
    steps = [lone_token(t) for t in range(len(v))]
    got = attend(cpu(isa), zeros, zeros, v, kv_type="f16", scale=1.0, steps=steps)
    # Times a weight of one and divided by one: exact, but a sum that starts with 0 has no -0.0.
    assert_same_bits(got, v.astype(np.float16).astype(np.float32) + np.float32(0))


def lone_token(token):
    """One token of a sequence of its own."""
    plan = one_sequence(1)
    return StepPlan(**(vars(plan) | {"token_ids": np.array([token], np.int32)}))


@ISAS
@KV_TYPES
@pytest.mark.parametrize("at", [0, 5, 127, 128, 140])
@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_nan_reaches_every_token_that_sees_it(isa, kv_type, at, part):
    q, k, v = inputs(150, 2, 1, 16)
    {"q": q, "k": k, "v": v}[part][at, :, 3] = np.nan
    got = attend(cpu(isa), q, k, v, kv_type=kv_type, scale=0.25)
    broken = np.isnan(got).any(axis=(1, 2))
    sees = np.arange(150) == at if part == "q" else np.arange(150) >= at
    assert np.array_equal(broken, sees)


@ISAS
@pytest.mark.parametrize("at", [0, 5, 127, 128, 140])
def test_a_key_beyond_f16_is_not_hidden(isa, at):
    q, k, v = inputs(150, 2, 1, 16)
    q[:, :, 3] = 1.0
    k[at, :, 3] = 1e5  # infinite in f16, and so is its score
    got = attend(cpu(isa), q, k, v, kv_type="f16", scale=0.25)
    assert np.isnan(got[at:]).all()
    assert np.isfinite(got[:at]).all()
