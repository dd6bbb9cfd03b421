"""The ops contract in numpy, computed at once: the oracle that every other backend is compared
with.

Slow and plain on purpose. Sums inside a matmul are float64, so that its own rounding is far below
that of the backends it judges. With exact=False activations are quantised as the contract says,
with exact=True not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rocmforge.backends.ops import (
    KvGeometry,
    RopeKind,
    StepInputs,
    StepLimits,
    TensorSource,
    WeightRef,
)
from rocmforge.errors import InferenceFailed
from rocmforge.quant.formats import GGMLType
from rocmforge.quant.reference import decode
from rocmforge.weights_store import WeightsStore

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
_LEAST_PEAK = np.float32(2.0**-121)
_Q8_BLOCK = {
    **dict.fromkeys(("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4"), 32),
    **dict.fromkeys(("IQ4_XS", "Q4_K", "Q5_K", "Q6_K"), 256),
}


def quantize_activations(x: Floats, block: int) -> Wide:
    """x [T, E] rounded to int8 with one float32 scale per `block` values, as float64 again.

    scale = max|x| / 127; values round half to even. A block of zeros stays zero, and so does one
    whose largest magnitude is at most 2^-121: the inverse of its scale would not fit float32.
    """
    rows = x.reshape(x.shape[0], -1, block)
    peak = np.abs(rows).max(axis=2, keepdims=True)
    scale = (peak / np.float32(127)).astype(np.float32)
    usable = ~(peak <= _LEAST_PEAK)  # NaN is: the row must not pass for zeros
    inverse = np.where(usable, np.float32(127) / np.where(usable, peak, np.float32(1)), 0)
    scaled = (rows * inverse.astype(np.float32)).astype(np.float32)
    quantized: Wide = np.rint(scaled) * scale.astype(np.float64)
    return quantized.reshape(x.shape)


class ReferenceOps:
    """`Ops` on real arrays, for one step."""

    def __init__(self, backend: ReferenceBackend, cache: _KvCache, step: StepInputs) -> None:
        self._backend = backend
        self._cache = cache
        self._step = step
        self.logits: Floats | None = None

    def embed(self, table: WeightRef) -> Floats:
        """See Ops."""
        ids = self._step.token_ids
        if ids.min() < 0 or ids.max() >= table.rows:
            raise InferenceFailed(f"a token id is outside the {table.rows} rows of the table")
        return self._backend.matrix(table)[ids].copy()

    def rms_norm(self, x: Floats, weight: WeightRef, eps: float) -> Floats:
        """See Ops."""
        wide = x.astype(np.float64)
        scale = 1.0 / np.sqrt((wide * wide).mean(axis=-1, keepdims=True) + eps)
        normed: Wide = wide * scale * self._backend.matrix(weight)[0]
        return normed.astype(np.float32)

    def head_rms_norm(self, x: Floats, weight: WeightRef, eps: float, n_heads: int) -> Floats:
        """See Ops."""
        heads = x.reshape(x.shape[0], n_heads, -1)
        x[:] = self.rms_norm(heads, weight, eps).reshape(x.shape)
        return x

    def matmul(self, x: Floats, weight: WeightRef, bias: WeightRef | None = None) -> Floats:
        """See Ops."""
        block = _Q8_BLOCK.get(weight.type_name)
        wide = (
            quantize_activations(x, block)
            if block and not self._backend.exact
            else x.astype(np.float64)
        )
        result = wide @ self._backend.matrix(weight).astype(np.float64).T
        if bias is not None:
            result += self._backend.matrix(bias)[0]
        return result.astype(np.float32)

    def add(self, x: Floats, y: Floats) -> Floats:
        """See Ops."""
        x += y
        return x

    def rope(
        self,
        x: Floats,
        n_heads: int,
        head_dim: int,
        rope_dim: int,
        kind: RopeKind,
        inv_freq: Floats,
        magnitude: float,
    ) -> Floats:
        """See Ops."""
        angles = self._step.positions[:, None].astype(np.float64) * inv_freq.astype(np.float64)
        angles = angles.astype(np.float32).astype(np.float64)
        cos = (np.cos(angles) * magnitude)[:, None, :]
        sin = (np.sin(angles) * magnitude)[:, None, :]
        heads = x.reshape(-1, n_heads, head_dim)[:, :, :rope_dim]
        half = rope_dim // 2
        first, second = (
            (slice(0, None, 2), slice(1, None, 2))
            if kind == "norm"
            else (slice(0, half), slice(half, rope_dim))
        )
        a, b = heads[..., first].astype(np.float64), heads[..., second].astype(np.float64)
        heads[..., first] = a * cos - b * sin
        heads[..., second] = a * sin + b * cos
        return x

    def kv_append(self, layer: int, k: Floats, v: Floats) -> None:
        """See Ops."""
        for s in range(len(self._step.context_len)):
            rows = slice(int(self._step.query_start[s]), int(self._step.query_start[s + 1]))
            slots = self._cache.slots(self._step.block_tables[s], self._step.positions[rows])
            self._cache.store(layer, slots, k[rows], v[rows])

    def attention(self, layer: int, q: Floats, n_heads: int, scale: float, window: int) -> Floats:
        """See Ops."""
        out = np.empty_like(q)
        for s in range(len(self._step.context_len)):
            rows = slice(int(self._step.query_start[s]), int(self._step.query_start[s + 1]))
            n_keys = int(self._step.context_len[s])
            slots = self._cache.slots(self._step.block_tables[s], np.arange(n_keys))
            keys, values = self._cache.load(layer, slots)  # [n, K, D]
            group = n_heads // keys.shape[1]
            keys, values = keys.repeat(group, axis=1), values.repeat(group, axis=1)
            heads = q[rows].reshape(-1, n_heads, keys.shape[2]).astype(np.float64)
            scores = np.einsum("thd,nhd->thn", heads, keys) * scale
            distance = self._step.positions[rows][:, None] - np.arange(n_keys)[None, :]
            hidden = (distance < 0) | ((distance >= window) if window else False)
            scores[np.broadcast_to(hidden[:, None, :], scores.shape)] = -np.inf
            weights = np.exp(scores - scores.max(axis=2, keepdims=True))
            weights /= weights.sum(axis=2, keepdims=True)
            out[rows] = np.einsum("thn,nhd->thd", weights, values).reshape(heads.shape[0], -1)
        return out

    def swiglu(self, gate: Floats, up: Floats) -> Floats:
        """See Ops."""
        wide = gate.astype(np.float64)
        with np.errstate(over="ignore"):
            gate[:] = wide / (1.0 + np.exp(-wide)) * up
        return gate

    def scale(self, x: Floats, factor: float) -> Floats:
        """See Ops."""
        x *= np.float32(factor)
        return x

    def select_rows(self, x: Floats) -> Floats:
        """See Ops."""
        return x[self._step.logits_rows]

    def output(self, x: Floats) -> None:
        """See Ops."""
        self.logits = x


class _KvCache:
    """Keys and values [N · P, K, D] per layer, in the cache's type."""

    def __init__(self, kv: KvGeometry) -> None:
        self.kv = kv
        shape = (kv.n_layers, 2, kv.n_blocks * kv.block_tokens, kv.n_kv_heads, kv.head_dim)
        self._data = np.zeros(shape, np.float16 if kv.kv_type == "f16" else np.float32)

    def slots(
        self, table: npt.NDArray[np.int32], positions: npt.NDArray[Any]
    ) -> npt.NDArray[np.int64]:
        """Where each position of a sequence is stored."""
        size = self.kv.block_tokens
        starts = table[positions // size].astype(np.int64) * size
        slots: npt.NDArray[np.int64] = starts + positions % size
        return slots

    def store(self, layer: int, slots: npt.NDArray[np.int64], k: Floats, v: Floats) -> None:
        for part, rows in ((0, k), (1, v)):
            self._data[layer, part, slots] = rows.reshape(len(slots), self.kv.n_kv_heads, -1)

    def load(
        self, layer: int, slots: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        keys, values = self._data[layer, 0, slots], self._data[layer, 1, slots]
        return keys.astype(np.float64), values.astype(np.float64)

    def copy(self, copies: npt.NDArray[np.int32]) -> None:
        size = self.kv.block_tokens
        for source, target in copies.tolist():
            self._data[:, :, target * size : (target + 1) * size] = self._data[
                :, :, source * size : (source + 1) * size
            ]


class ReferenceProgram:
    """Runs the forward anew for each step."""

    def __init__(
        self,
        backend: ReferenceBackend,
        forward: Callable[[Any], None],
        kv: KvGeometry,
        op_counter: memoryview | None,
    ) -> None:
        self._backend = backend
        self._forward = forward
        self._cache = _KvCache(kv)
        self._counter = None if op_counter is None else op_counter.cast("B").cast("Q")

    def run(self, step: StepInputs) -> Floats:
        """See Program."""
        self._cache.copy(step.block_copies)
        ops = ReferenceOps(self._backend, self._cache, step)
        self._forward(ops)
        if self._counter is not None:
            self._counter[0] += 1
        if ops.logits is None:
            raise InferenceFailed("the model's forward marked no output")
        return ops.logits

    def close(self) -> None:
        """See Program."""
        if self._counter is not None:
            self._counter.release()


class ReferenceBackend:
    """Holds all weights decoded to float32."""

    name = "reference"
    device = "cpu"
    isa = "numpy"
    n_threads = 1

    def __init__(self, *, exact: bool = False) -> None:
        self.exact = exact
        self._matrices: list[Floats] = []

    def place_weights(self, tensors: Sequence[TensorSource]) -> tuple[dict[str, WeightRef], int]:
        """See Backend: every value takes four bytes."""
        refs: dict[str, WeightRef] = {}
        for tensor in tensors:
            rows, cols = math.prod(tensor.shape[:-1]), tensor.shape[-1]
            refs[tensor.name] = WeightRef(len(refs), tensor.name, rows, cols, tensor.type.name)
        return refs, 4 * sum(ref.rows * ref.cols for ref in refs.values())

    def workspace_bytes(self, forward: Callable[[Any], None], limits: StepLimits) -> int:
        """See Backend: arrays come and go with each step, nothing is reserved."""
        del forward, limits
        return 0

    def load_weights(
        self,
        tensors: Sequence[TensorSource],
        progress: Callable[[float], None] | None = None,
        store: WeightsStore | None = None,
    ) -> dict[str, WeightRef]:
        """See Backend; a store is left as it is. Types are named as in the file, so that
        activations are quantised alike.
        """
        refs, _ = self.place_weights(tensors)
        self._matrices = []
        for i, tensor in enumerate(tensors):
            ref = refs[tensor.name]
            values = decode(GGMLType(tensor.type), bytes(tensor.data), ref.rows * ref.cols)
            self._matrices.append(values.reshape(ref.rows, ref.cols))
            if progress is not None:
                progress((i + 1) / len(tensors))
        return refs

    def matrix(self, ref: WeightRef) -> Floats:
        """The decoded weight [rows, cols]."""
        return self._matrices[ref.index]

    def create_program(
        self,
        forward: Callable[[Any], None],
        kv: KvGeometry,
        limits: StepLimits,
        op_counter: memoryview | None = None,
    ) -> ReferenceProgram:
        """See Backend."""
        return ReferenceProgram(self, forward, kv, op_counter)

    def close(self) -> None:
        """See Backend."""
        self._matrices = []
