"""Embedding, norms, rotation, SwiGLU and the rest against the reference and across ISAs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rocmforge.backends.cpu import KERNEL_TYPES
from rocmforge.backends.select import available_isas
from rocmforge.engine.step_plan import StepPlan
from rocmforge.errors import InferenceFailed
from rocmforge.quant.reference import decode
from tests.support.kernel_bench import KV, cpu, one_sequence, reference, run, source, table, vector

EPSILON = 2.0**-24
# Blocks for positions up to 100 003.
WIDE = dataclasses.replace(KV, n_blocks=6300)
WIDTHS = (8, 33, 64, 77, 256)


def compare(tensors, forward, steps, relative, absolute=0.0):
    """All ISAs against the reference within the bound, and equal to each other bit for bit."""
    expected = run(reference(exact=True), tensors, forward, steps, WIDE)
    per_isa = [run(cpu(isa, 3), tensors, forward, steps, WIDE) for isa in available_isas()]
    for results in per_isa:
        for got, one, want in zip(results, per_isa[0], expected, strict=True):
            assert np.array_equal(got, one)
            np.testing.assert_allclose(got, want, rtol=relative, atol=absolute)


def activations(seed, n, width, gain=1.0):
    return (gain * np.random.default_rng(seed).standard_normal((n, width))).astype(np.float32)


@pytest.mark.parametrize("type_name", [*KERNEL_TYPES, "Q5_0", "Q4_1"])
def test_embed_is_exact(type_name):
    values = activations(0, 37, 512)
    tensor = source("x", type_name, values)
    decoded = decode(tensor.type, bytes(tensor.data), values.size).reshape(values.shape)
    for isa in available_isas():
        (got,) = run(cpu(isa), [tensor], lambda ops, weights, x: x, [one_sequence(37)])
        assert np.array_equal(got, decoded)


@pytest.mark.parametrize("width", WIDTHS)
def test_rms_norm(width):
    x = activations(1, 5, width)
    x[3] = 0
    weight = vector("g", activations(2, 1, width)[0])
    # A sum of squares has no cancellation: (width / 8 + 3) roundings, and six around it.
    relative = (width / 8 + 9) * EPSILON
    compare(
        [table(x), weight],
        lambda ops, weights, x: ops.rms_norm(x, weights["g"], 1e-5),
        [one_sequence(5)],
        relative,
    )


@pytest.mark.parametrize(("n_heads", "dim"), [(1, 8), (4, 64), (3, 80)])
def test_head_rms_norm(n_heads, dim):
    x = activations(3, 4, n_heads * dim)
    weight = vector("g", activations(4, 1, dim)[0])
    compare(
        [table(x), weight],
        lambda ops, weights, x: ops.head_rms_norm(x, weights["g"], 1e-6, n_heads),
        [one_sequence(4)],
        (dim / 8 + 9) * EPSILON,
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_add_and_scale_are_exact(width):
    x = activations(5, 6, width)

    def forward(ops, weights, x):
        other = ops.rms_norm(x, weights["g"], 1e-5)
        return ops.scale(ops.add(x, other), 0.37)

    ones = vector("g", np.ones(width))
    expected = run(cpu("scalar"), [table(x), ones], lambda o, w, b: o.rms_norm(b, w["g"], 1e-5),
                   [one_sequence(6)])[0]  # fmt: skip
    want = (x + expected) * np.float32(0.37)
    for isa in available_isas():
        (got,) = run(cpu(isa), [table(x), ones], forward, [one_sequence(6)])
        assert np.array_equal(got, want)


@pytest.mark.parametrize("kind", ["norm", "neox"])
@pytest.mark.parametrize(("n_heads", "dim", "rope_dim"), [(2, 64, 64), (3, 80, 32), (1, 8, 2)])
@pytest.mark.parametrize("start", [0, 1000, 100_000])
def test_rope(kind, n_heads, dim, rope_dim, start):
    x = activations(6, 3, n_heads * dim)
    inv_freq = (10000.0 ** (-np.arange(0, rope_dim, 2) / rope_dim)).astype(np.float32)
    compare(
        [table(x)],
        lambda ops, weights, x: ops.rope(x, n_heads, dim, rope_dim, kind, inv_freq, 1.1),
        [one_sequence(3, start=start)],
        0.0,
        # Cosine and sine, two products and their sum are rounded once each; values up to 1.1·max.
        4 * EPSILON * 1.1 * 2 * float(np.abs(x).max()),
    )


@pytest.mark.parametrize("gain", [0.1, 1.0, 30.0, 200.0])
def test_swiglu(gain):
    x = activations(7, 4, 77, gain)

    def forward(ops, weights, x):
        up = ops.rms_norm(x, weights["g"], 1e-5)
        return ops.swiglu(x, up)

    # e^x to 2 ulp, division, two products; the norm's own error comes on top. Below e^-87 the
    # kernel's exponential stops, at values that the product still keeps below 1e-33.
    relative = (77 / 8 + 9 + 8) * EPSILON * (1 + gain / 8)
    compare([table(x), vector("g", np.ones(77))], forward, [one_sequence(4)], relative, 1e-33)


def test_select_rows():
    x = activations(8, 9, 24)
    for rows in ([0], [8], [1, 4, 7], [], list(range(9))):
        (got,) = run(cpu(), [table(x)], lambda ops, weights, x: x, [one_sequence(9, rows=rows)])
        assert np.array_equal(got, x[rows])


def test_operations_are_counted():
    counter = np.zeros(1, np.uint64)
    x = activations(9, 2, 16)
    run(
        cpu(),
        [table(x), vector("g", np.ones(16))],
        lambda ops, weights, x: ops.rms_norm(x, weights["g"], 1e-5),
        [one_sequence(2)] * 5,
        op_counter=memoryview(counter).cast("B"),
    )
    # embed, rms_norm, select_rows, five times.
    assert counter[0] == 15


def test_a_quantised_copy_is_not_used_after_its_source_changed():
    x = activations(10, 3, 64)
    w = source("w", "Q8_0", activations(11, 64, 64))

    def forward(ops, weights, x):
        first = ops.matmul(x, weights["w"])
        changed = ops.add(x, first)
        return ops.matmul(changed, weights["w"])

    expected = run(reference(), [table(x), w], forward, [one_sequence(3)])[0]
    got = run(cpu(), [table(x), w], forward, [one_sequence(3)])[0]
    # One rounding flip in the second quantisation moves a value by half a step.
    assert ((got - expected) ** 2).sum() / (expected**2).sum() < 1e-4


def steps_that_lie():
    good = one_sequence(4)
    for field, value in (
        ("token_ids", [0, 1, 2, 99]),
        ("token_ids", [0, 1, 2, -1]),
        ("token_ids", [0, 1, 2]),
        ("positions", [0, 1, 2, 4]),
        ("positions", [-1, 0, 1, 2]),
        ("query_start", [0, 5]),
        ("query_start", [1, 4]),
        ("query_start", [0, 0, 4]),
        ("context_len", [3]),
        ("context_len", [2**31 - 1]),
        ("logits_rows", [4]),
        ("logits_rows", [-1]),
    ):
        yield pytest.param(good, {field: np.array(value, np.int32)}, id=f"{field} {value}")
    for table_ in ([[4]], [[-1]], [[]]):
        yield pytest.param(good, {"block_tables": np.array(table_, np.int32).reshape(1, -1)})
    yield pytest.param(good, {"block_copies": np.array([[0, 4]], np.int32)}, id="copy")
    yield pytest.param(good, {"positions": np.arange(8, dtype=np.int32)[::2]}, id="strided")


@pytest.mark.parametrize(("step", "lie"), list(steps_that_lie()))
def test_steps_that_break_the_contract_are_refused(step, lie):
    bad: StepPlan = dataclasses.replace(step, **lie)
    limits = one_sequence(4)
    with pytest.raises(InferenceFailed, match="the step cannot be run"):
        run(cpu(), [table(activations(12, 4, 16))], lambda ops, weights, x: x, [limits, bad])
