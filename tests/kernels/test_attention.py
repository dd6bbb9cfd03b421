"""Paged attention: against the reference, and independent of all that must not matter."""

from __future__ import annotations

import numpy as np
import pytest

from rocmforge.backends.ops import KvGeometry
from rocmforge.backends.select import available_isas
from rocmforge.engine.step_plan import StepPlan
from tests.support.kernel_bench import cpu, reference, run, source, table

EPSILON = 2.0**-24
BLOCK = 16
N_BLOCKS = 64


class Shape:
    """One attention layer on its own: q, k and v are slices of the embedding, by projections that
    copy."""

    def __init__(self, n_heads, n_kv_heads, dim, *, kv_type="f32", window=0):
        self.n_heads, self.n_kv_heads, self.dim, self.window = n_heads, n_kv_heads, dim, window
        self.kv = KvGeometry(
            n_layers=1,
            n_kv_heads=n_kv_heads,
            head_dim=dim,
            n_blocks=N_BLOCKS,
            block_tokens=BLOCK,
            kv_type=kv_type,
        )
        self.widths = [n_heads * dim, n_kv_heads * dim, n_kv_heads * dim]

    def tensors(self, seed, n_vocab):
        width = sum(self.widths)
        x = np.random.default_rng(seed).standard_normal((n_vocab, width)).astype(np.float32)
        eye, slices, start = np.eye(width, dtype=np.float32), [], 0
        for name, n in zip("qkv", self.widths, strict=True):
            slices.append(source(name, "F32", eye[start : start + n]))
            start += n
        return [table(x), *slices]

    def forward(self, ops, weights, x):
        q, k, v = (ops.matmul(x, weights[name]) for name in "qkv")
        ops.kv_append(0, k, v)
        return ops.attention(0, q, self.n_heads, self.dim**-0.5, self.window)

    def run(self, backend, tensors, steps):
        return run(backend, tensors, self.forward, steps, self.kv)


def step(*sequences):
    """sequences: (token ids of this step, first position, block table)."""
    ids = [i for tokens, _, _ in sequences for i in tokens]
    positions = [start + i for tokens, start, _ in sequences for i in range(len(tokens))]
    width = max(len(blocks) for _, _, blocks in sequences)
    tables = np.full((len(sequences), width), -1, np.int32)
    for row, (tokens, start, blocks) in enumerate(sequences):
        used = -(-(start + len(tokens)) // BLOCK)
        tables[row, :used] = blocks[:used]
    return StepPlan(
        token_ids=np.array(ids, np.int32),
        positions=np.array(positions, np.int32),
        query_start=np.cumsum([0, *(len(tokens) for tokens, _, _ in sequences)]).astype(np.int32),
        context_len=np.array([start + len(tokens) for tokens, start, _ in sequences], np.int32),
        block_tables=tables,
        logits_rows=np.arange(len(ids), dtype=np.int32),
    )


SHAPES = [
    Shape(1, 1, 8),
    Shape(4, 4, 32),
    Shape(4, 2, 64),
    Shape(8, 2, 80),
    Shape(8, 1, 128),
    Shape(7, 1, 16),
    Shape(4, 2, 64, kv_type="f16"),
    Shape(4, 2, 64, window=20),
    Shape(3, 3, 40, kv_type="f16", window=130),
]
IDS = [f"{s.n_heads}/{s.n_kv_heads}x{s.dim} {s.kv.kv_type} w{s.window}" for s in SHAPES]


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 127, 128, 129, 300])
def test_against_the_reference(shape, n):
    tensors = shape.tensors(n, 300)
    steps = [step((list(range(n)), 0, list(range(N_BLOCKS))))]
    (expected,) = shape.run(reference(exact=True), tensors, steps)
    # A score is a sum of dim/8 + 3 roundings of terms that add up to at most |q||k|/sqrt(dim), here
    # below 4·sqrt(dim)/sqrt(8); an error e of a score moves the mean by at most 2e·max|v|. Sums
    # over n keys add n/8 + 10 roundings of values up to max|v|.
    score = (shape.dim / 8 + 6) * EPSILON * shape.dim
    largest = max(float(np.abs(expected).max()), 5.0)
    allowed = (2 * score + (n / 8 + 10) * EPSILON + 8 * EPSILON) * largest
    for isa in available_isas():
        (got,) = shape.run(cpu(isa), tensors, steps)
        np.testing.assert_allclose(got, expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_chunks_neighbours_blocks_threads_and_isas_change_no_bit(shape):
    rng = np.random.default_rng(3)
    tensors = shape.tensors(4, 300)
    n = 290
    ids = rng.integers(0, 300, n).tolist()
    plain = list(range(20))
    (whole,) = shape.run(cpu("scalar", 1), tensors, [step((ids, 0, plain))])
    blocks = rng.permutation(N_BLOCKS)
    mine, other, third = (blocks[:20].tolist(), blocks[20:40].tolist(), blocks[40:60].tolist())
    for isa in available_isas():
        for n_threads in (1, 3):
            chunked, start = [], 0
            for size in (1, 5, 16, 100, 128, 39, 1):
                neighbours = [(ids[:7], start, other), (ids[3:5], start, third)]
                chunk = (ids[start : start + size], start, mine)
                # The neighbours' earlier keys are whatever lies in their blocks.
                order = [*neighbours, chunk] if size % 2 else [chunk, *neighbours]
                chunked.append((step(*order), order.index(chunk)))
                start += size
            results = shape.run(cpu(isa, n_threads), tensors, [one for one, _ in chunked])
            parts = [
                result[one.query_start[at] : one.query_start[at + 1]]
                for result, (one, at) in zip(results, chunked, strict=True)
            ]
            assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_copied_blocks_hold_the_same(kv_type):
    shape = Shape(4, 2, 32, kv_type=kv_type)
    tensors = shape.tensors(5, 40)
    first = step((list(range(32)), 0, [0, 1]))
    going_on = step(([32], 32, [0, 1, 2]))
    copied = step(([32], 32, [7, 9, 2]))
    copied = StepPlan(**(vars(copied) | {"block_copies": np.array([[0, 7], [1, 9]], np.int32)}))
    plain = shape.run(cpu(), tensors, [first, going_on])[1]
    assert np.array_equal(shape.run(cpu(), tensors, [first, copied])[1], plain)


def test_a_head_dim_that_no_register_holds_is_refused():
    from rocmforge.errors import BackendInitializationFailed

    shape = Shape(1, 1, 12)
    with pytest.raises(BackendInitializationFailed, match="multiple of 8"):
        shape.run(cpu(), shape.tensors(0, 4), [step(([0], 0, [0]))])
