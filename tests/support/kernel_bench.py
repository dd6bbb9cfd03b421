"""One operation at a time, on any backend: weights, a forward of a few ops, a step, the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rocmforge.backends.cpu import CpuBackend
from rocmforge.backends.ops import KvGeometry, StepLimits, TensorSource
from rocmforge.backends.reference import ReferenceBackend
from rocmforge.engine.step_plan import StepPlan
from rocmforge.quant.encode import ENCODERS, encode
from rocmforge.quant.formats import FORMATS, GGMLType
from tests.support.quant_blocks import random_blocks, set_scale

KV = KvGeometry(n_layers=1, n_kv_heads=1, head_dim=8, n_blocks=4, block_tokens=16, kv_type="f32")


def source(name: str, type_name: str, values: np.ndarray) -> TensorSource:
    """A tensor of the given type; of a type without an encoder random codes with usual scales."""
    type_ = GGMLType[type_name]
    if type_ not in ENCODERS:
        blocks = random_blocks(type_name, values.size // FORMATS[type_].block_size)
        if type_name == "MXFP4":
            blocks[:, 0] = blocks[:, 0] % 4 + 122
        else:
            set_scale(blocks, type_name, 0.01)
        return TensorSource(name, type_, values.shape, memoryview(blocks.tobytes()))
    return TensorSource(name, type_, values.shape, memoryview(encode(type_, values)))


def random_matrix(name: str, type_name: str, rows: int, cols: int) -> TensorSource:
    """Blocks of any bytes with finite scales."""
    type_ = GGMLType[type_name]
    blocks = random_blocks(type_name, rows * cols // FORMATS[type_].block_size)
    if type_name == "MXFP4":
        blocks[:, 0] = blocks[:, 0] % 32 + 112  # a power of two around 1, not up to 2^127
    return TensorSource(name, type_, (rows, cols), memoryview(blocks.tobytes()))


def vector(name: str, values: np.ndarray) -> TensorSource:
    """A plain F32 vector."""
    return source(name, "F32", values.astype(np.float32))


def table(x: np.ndarray) -> TensorSource:
    """Activations as an embedding: token t embeds to row t of x, exactly."""
    return source("x", "F32", x.astype(np.float32))


def one_sequence(n: int, *, rows: Sequence[int] | None = None, start: int = 0) -> StepPlan:
    """n tokens 0 … n-1 of one sequence at positions start … start + n - 1, all rows wanted."""
    end = start + n
    blocks = np.arange(-(-end // 16), dtype=np.int32)
    return StepPlan(
        token_ids=np.arange(n, dtype=np.int32),
        positions=np.arange(start, end, dtype=np.int32),
        query_start=np.array([0, n], np.int32),
        context_len=np.array([end], np.int32),
        block_tables=blocks.reshape(1, -1),
        logits_rows=np.arange(n, dtype=np.int32) if rows is None else np.array(rows, np.int32),
    )


Forward = Callable[[Any, dict[str, Any], Any], Any]


def run(
    backend: Any,
    tensors: Sequence[TensorSource],
    forward: Forward,
    steps: Sequence[StepPlan],
    kv: KvGeometry = KV,
    op_counter: memoryview | None = None,
) -> list[np.ndarray]:
    """The results of the steps. forward(ops, weights, x) gets the embedded tokens, and returns
    what becomes the result."""
    weights = backend.load_weights(tensors)

    def whole(ops):
        ops.output(ops.select_rows(forward(ops, weights, ops.embed(weights["x"]))))

    n_tokens = max(step.n_tokens for step in steps)
    limits = StepLimits(
        max_tokens=n_tokens,
        max_sequences=max(step.n_sequences for step in steps),
        max_rows=max(n_tokens, 1),
        max_blocks_per_sequence=max(step.block_tables.shape[1] for step in steps),
    )
    program = backend.create_program(whole, kv, limits, op_counter)
    results = [program.run(step).copy() for step in steps]
    program.close()
    backend.close()
    return results


def cpu(isa: str = "auto", n_threads: int = 2) -> CpuBackend:
    return CpuBackend(n_threads, isa)


def reference(*, exact: bool = False) -> ReferenceBackend:
    return ReferenceBackend(exact=exact)
