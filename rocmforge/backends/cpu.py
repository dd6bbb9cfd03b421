"""The CPU backend: weights packed for the native core, and forwards recorded into its programs.

    backend = CpuBackend(n_threads=2)
    weights = backend.load_weights(sources)
    program = backend.create_program(decoder.forward, kv, limits)
    logits = program.run(step)              # no Python between the operations

`CpuOps` records: every handle is a `Buffer`, and what it records is a list of native operations
over buffers that have no place yet. `plan_places` then lays the buffers out in one arena, two
sharing a place when they are never needed at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rocmforge import _native
from rocmforge.backends.ops import (
    KvGeometry,
    RopeKind,
    StepInputs,
    StepLimits,
    TensorSource,
    WeightRef,
)
from rocmforge.errors import (
    BackendInitializationFailed,
    InferenceFailed,
    InvalidCacheConfiguration,
    InvalidTensorShape,
    ModelLoadFailed,
)
from rocmforge.quant.formats import GGMLType, row_bytes
from rocmforge.quant.reference import decode

KERNEL_TYPES: Final = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K")
_FLOAT_TYPES: Final = ("F32", "F16", "BF16")
_ALIGNMENT: Final = 64
# Rows of a tensor without a kernel are decoded to F32 in pieces of about this many values.
_DECODE_VALUES: Final = 1 << 22
_Kind = _native.OpKind


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


@dataclass(eq=False)
class Buffer:
    """A handle while recording: rows (T, or R when `of_rows`) of `width` floats, or of quantised
    values when `row_bytes` says so. `first` … `last` are the operations that need it."""

    width: int
    of_rows: bool
    row_bytes: int
    first: int = -1
    last: int = -1
    is_logits: bool = False
    quantized: dict[str, Buffer] = field(default_factory=dict)
    """What it was quantised to, by the kind of blocks, since it was written last."""


@dataclass(frozen=True)
class _Recorded:
    kind: _native.OpKind
    of_rows: bool
    buffers: dict[str, Buffer]
    numbers: dict[str, Any]


class CpuOps:
    """`Ops` that records. Operations are described in native/program.h."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self._offsets = offsets
        self._rope_tables: dict[tuple[bytes, float], Buffer] = {}
        self.frequencies: list[list[float]] = []
        self.operations: list[_Recorded] = []
        self.buffers: list[Buffer] = []
        self.logits: Buffer | None = None

    def _buffer(self, width: int, of_rows: bool, n_bytes: int | None = None) -> Buffer:
        buffer = Buffer(width, of_rows, 4 * width if n_bytes is None else n_bytes)
        self.buffers.append(buffer)
        return buffer

    def _record(
        self, kind: _native.OpKind, of_rows: bool, buffers: dict[str, Buffer], **numbers: Any
    ) -> None:
        index = len(self.operations)
        for buffer in buffers.values():
            buffer.first = index if buffer.first < 0 else buffer.first
            buffer.last = index
        self.operations.append(_Recorded(kind, of_rows, buffers, numbers))

    def _record_in_place(
        self, kind: _native.OpKind, x: Buffer, y: Buffer | None = None, **numbers: Any
    ) -> Buffer:
        if y is not None and (y.width, y.of_rows) != (x.width, x.of_rows):
            raise InvalidTensorShape(f"a row of {y.width} meets one of {x.width}")
        buffers = {"x": x} if y is None else {"x": x, "y": y}
        self._record(kind, x.of_rows, buffers, width=x.width, **numbers)
        x.quantized.clear()
        return x

    def embed(self, table: WeightRef) -> Buffer:
        """See Ops."""
        out = self._buffer(table.cols, of_rows=False)
        self._record(
            _Kind.Embed,
            False,
            {"out": out},
            width=table.cols,
            n_out=table.rows,
            weight=self._offsets[table.index],
            type=table.type_name,
        )
        return out

    def rms_norm(self, x: Buffer, weight: WeightRef, eps: float) -> Buffer:
        """See Ops."""
        _check_width(x.width, weight)
        out = self._buffer(x.width, x.of_rows)
        offset = self._offsets[weight.index]
        self._record(
            _Kind.RmsNorm,
            x.of_rows,
            {"x": x, "out": out},
            width=x.width,
            weight=offset,
            factor=eps,
        )
        return out

    def head_rms_norm(self, x: Buffer, weight: WeightRef, eps: float, n_heads: int) -> Buffer:
        """See Ops."""
        _check_width(x.width // n_heads, weight)
        return self._record_in_place(
            _Kind.HeadNorm, x, n_heads=n_heads, weight=self._offsets[weight.index], factor=eps
        )

    def matmul(self, x: Buffer, weight: WeightRef, bias: WeightRef | None = None) -> Buffer:
        """See Ops."""
        _check_width(x.width, weight)
        if bias is not None:
            _check_width(weight.rows, bias)
        out = self._buffer(weight.rows, x.of_rows)
        self._record(
            _Kind.Matmul,
            x.of_rows,
            {"x": self._as_input(x, weight.type_name), "out": out},
            width=weight.cols,
            n_out=weight.rows,
            weight=self._offsets[weight.index],
            bias=-1 if bias is None else self._offsets[bias.index],
            type=weight.type_name,
        )
        return out

    def _as_input(self, x: Buffer, type_name: str) -> Buffer:
        """x itself, or its quantised copy, made once for all weights of a kind."""
        if type_name in _FLOAT_TYPES:
            return x
        kind = "32" if type_name.endswith("_0") else "256"
        if kind not in x.quantized:
            n_bytes = _native.quantized_row_bytes(type_name, x.width)
            x.quantized[kind] = self._buffer(x.width, x.of_rows, n_bytes)
            buffers = {"x": x, "out": x.quantized[kind]}
            self._record(_Kind.Quantize, x.of_rows, buffers, width=x.width, type=type_name)
        return x.quantized[kind]

    def add(self, x: Buffer, y: Buffer) -> Buffer:
        """See Ops."""
        return self._record_in_place(_Kind.Add, x, y)

    def rope(
        self,
        x: Buffer,
        n_heads: int,
        head_dim: int,
        rope_dim: int,
        kind: RopeKind,
        inv_freq: npt.NDArray[np.float32],
        magnitude: float,
    ) -> Buffer:
        """See Ops."""
        tables = self._tables(inv_freq, magnitude, rope_dim)
        self._record(
            _Kind.Rope,
            False,
            {"x": x, "y": tables},
            width=x.width,
            n_heads=n_heads,
            head_dim=head_dim,
            rope_dim=rope_dim,
            neox=kind == "neox",
        )
        x.quantized.clear()
        return x

    def _tables(self, inv_freq: npt.NDArray[np.float32], magnitude: float, rope_dim: int) -> Buffer:
        """Cosines and sines of the step's positions, computed once for all layers."""
        key = (inv_freq.tobytes(), magnitude)
        if key not in self._rope_tables:
            self._rope_tables[key] = self._buffer(rope_dim, of_rows=False)
            self.frequencies.append([float(f) for f in inv_freq])
            self._record(
                _Kind.RopeTables,
                False,
                {"out": self._rope_tables[key]},
                width=rope_dim,
                rope_dim=rope_dim,
                table=len(self.frequencies) - 1,
                factor=magnitude,
            )
        return self._rope_tables[key]

    def kv_append(self, layer: int, k: Buffer, v: Buffer) -> None:
        """See Ops."""
        self._record(_Kind.KvAppend, False, {"x": k, "y": v}, width=k.width, layer=layer)

    def attention(self, layer: int, q: Buffer, n_heads: int, scale: float, window: int) -> Buffer:
        """See Ops."""
        out = self._buffer(q.width, of_rows=False)
        self._record(
            _Kind.Attention,
            False,
            {"x": q, "out": out},
            width=q.width,
            layer=layer,
            n_heads=n_heads,
            window=window,
            factor=scale,
        )
        return out

    def swiglu(self, gate: Buffer, up: Buffer) -> Buffer:
        """See Ops."""
        return self._record_in_place(_Kind.Swiglu, gate, up)

    def scale(self, x: Buffer, factor: float) -> Buffer:
        """See Ops."""
        return self._record_in_place(_Kind.Scale, x, factor=factor)

    def select_rows(self, x: Buffer) -> Buffer:
        """See Ops."""
        out = self._buffer(x.width, of_rows=True)
        self._record(_Kind.SelectRows, True, {"x": x, "out": out}, width=x.width)
        return out

    def output(self, x: Buffer) -> None:
        """See Ops."""
        if not x.of_rows:
            raise InferenceFailed("the logits are not of selected rows: call select_rows first")
        x.is_logits = True
        self.logits = x


def _check_width(width: int, weight: WeightRef) -> None:
    if width != weight.cols:
        raise InvalidTensorShape(
            f"{weight.name} takes rows of {weight.cols} values, the model has {width}"
        )


def plan_places(buffers: Sequence[Buffer], limits: StepLimits) -> tuple[dict[int, int], int]:
    """id(buffer) → offset in the arena, and the arena's bytes, for the largest step.

    First fit, largest first: two buffers overlap in memory only when their lives do not.
    """
    sizes = {
        id(b): _aligned(b.row_bytes * (limits.max_rows if b.of_rows else limits.max_tokens))
        for b in buffers
    }
    places: dict[int, int] = {}
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: -sizes[id(b)]):
        if buffer.is_logits:
            places[id(buffer)] = _native.LOGITS
            continue
        rivals = sorted(
            (places[id(other)], sizes[id(other)])
            for other in placed
            if other.first <= buffer.last and buffer.first <= other.last
        )
        offset = 0
        for start, size in rivals:
            if offset + sizes[id(buffer)] <= start:
                break
            offset = max(offset, start + size)
        places[id(buffer)] = offset
        placed.append(buffer)
    total = max((places[id(b)] + sizes[id(b)] for b in placed), default=0)
    return places, total


class CpuProgram:
    """A native program and the numpy arrays around it."""

    def __init__(
        self, native: _native.Program, n_vocab: int, max_rows: int, op_counter: memoryview | None
    ) -> None:
        self._native: _native.Program | None = native
        self._logits = np.empty((max_rows, n_vocab), np.float32)
        self._counter = (
            np.zeros(1, np.int64) if op_counter is None else np.frombuffer(op_counter, np.int64)
        )

    def run(self, step: StepInputs) -> npt.NDArray[np.float32]:
        """See Program."""
        if self._native is None:
            raise InferenceFailed("the program is closed")
        try:
            self._native.run(
                step.token_ids,
                step.positions,
                step.query_start,
                step.context_len,
                step.block_tables,
                step.logits_rows,
                step.block_copies,
                self._logits,
                self._counter,
            )
        except (ValueError, TypeError) as error:
            # TypeError: an array of another type or shape than the binding takes.
            raise InferenceFailed(f"the step cannot be run: {error}") from error
        return self._logits[: len(step.logits_rows)]

    def close(self) -> None:
        """See Program."""
        self._native = None
        self._counter = np.zeros(1, np.int64)


class CpuBackend:
    """Weights in one arena, kernels of one ISA, threads of its own."""

    name = "cpu"
    device = "cpu"

    def __init__(self, n_threads: int | None = None, isa: str = "auto") -> None:
        """n_threads None: every core that this process may use. Raises
        BackendInitializationFailed for an ISA that this machine lacks."""
        available = _native.available_isas()
        self.isa = available[0] if isa == "auto" else isa
        if self.isa not in available:
            raise BackendInitializationFailed(
                f"this machine has no {isa}; choose one of {', '.join(available)} or auto"
            )
        self.n_threads = n_threads or len(os.sched_getaffinity(0))
        self._pool = _native.ThreadPool(self.n_threads)
        self._weights: _native.Weights | None = None
        self._offsets: list[int] = []

    def load_weights(
        self, tensors: Sequence[TensorSource], progress: Callable[[float], None] | None = None
    ) -> dict[str, WeightRef]:
        """See Backend. Raises ModelLoadFailed when there is no room for the weights."""
        refs, total = self._place_weights(tensors)
        weights = _allocate_weights(total)
        n_done, n_bytes = 0, sum(len(tensor.data) for tensor in tensors)
        for tensor in tensors:
            self._load(weights, tensor, refs[tensor.name])
            n_done += len(tensor.data)
            if progress is not None:
                progress(n_done / max(1, n_bytes))
        self._weights = weights
        return refs

    def _place_weights(self, tensors: Sequence[TensorSource]) -> tuple[dict[str, WeightRef], int]:
        refs: dict[str, WeightRef] = {}
        self._offsets, total = [], 0
        for tensor in tensors:
            rows, cols = math.prod(tensor.shape[:-1]), tensor.shape[-1]
            is_vector = len(tensor.shape) == 1
            type_name = tensor.type.name
            if is_vector or type_name not in KERNEL_TYPES:
                type_name = "F32"
            refs[tensor.name] = WeightRef(len(self._offsets), tensor.name, rows, cols, type_name)
            self._offsets.append(total)
            size = 4 * cols if is_vector else _native.matrix_bytes(type_name, rows, cols)
            total += _aligned(size)
        return refs, total

    def _load(self, weights: _native.Weights, tensor: TensorSource, ref: WeightRef) -> None:
        offset, kind = self._offsets[ref.index], GGMLType(tensor.type)
        if len(tensor.data) != ref.rows * row_bytes(kind, ref.cols):
            raise InvalidTensorShape(f"{ref.name} has another size than its shape says")
        if len(tensor.shape) == 1:
            values = decode(kind, bytes(tensor.data), ref.cols)
            weights.store(offset, values.astype(np.float32).view(np.uint8))
            return
        if kind.name == ref.type_name:
            data = np.frombuffer(tensor.data, np.uint8)
            weights.pack(self._pool, offset, ref.type_name, ref.cols, 0, ref.rows, data)
            return
        self._load_decoded(weights, tensor, ref, offset)

    def _load_decoded(
        self, weights: _native.Weights, tensor: TensorSource, ref: WeightRef, offset: int
    ) -> None:
        stride = row_bytes(GGMLType(tensor.type), ref.cols)
        piece = max(8, _DECODE_VALUES // ref.cols // 8 * 8)
        for first in range(0, ref.rows, piece):
            n_rows = min(piece, ref.rows - first)
            data = bytes(tensor.data[first * stride : (first + n_rows) * stride])
            values = decode(GGMLType(tensor.type), data, n_rows * ref.cols).astype(np.float32)
            raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            weights.pack(self._pool, offset, "F32", ref.cols, first, n_rows, raw)

    def create_program(
        self,
        forward: Callable[[Any], None],
        kv: KvGeometry,
        limits: StepLimits,
        op_counter: memoryview | None = None,
    ) -> CpuProgram:
        """See Backend. Raises InvalidCacheConfiguration for a cache that the kernels do not read,
        BackendInitializationFailed when there is no room or the forward does not fit the kernels.
        """
        if self._weights is None:
            raise BackendInitializationFailed("load_weights comes before create_program")
        if kv.kv_type not in ("f16", "f32"):
            raise InvalidCacheConfiguration(f"kv_type {kv.kv_type!r} is not f16 or f32")
        ops = CpuOps(self._offsets)
        forward(ops)
        if ops.logits is None:
            raise InferenceFailed("the model's forward marked no output")
        native = self._build(ops, self._weights, kv, limits)
        return CpuProgram(native, ops.logits.width, limits.max_rows, op_counter)

    def _build(
        self, ops: CpuOps, weights: _native.Weights, kv: KvGeometry, limits: StepLimits
    ) -> _native.Program:
        places, arena_bytes = plan_places(ops.buffers, limits)
        try:
            program = _native.Program(
                weights,
                self._pool,
                self.isa,
                n_layers=kv.n_layers,
                n_kv_heads=kv.n_kv_heads,
                head_dim=kv.head_dim,
                n_blocks=kv.n_blocks,
                block_tokens=kv.block_tokens,
                is_f16=kv.kv_type == "f16",
                max_tokens=limits.max_tokens,
                max_sequences=limits.max_sequences,
                max_rows=limits.max_rows,
                max_blocks=limits.max_blocks_per_sequence,
                arena_bytes=arena_bytes,
            )
            for frequencies in ops.frequencies:
                program.add_frequencies(frequencies)
            for operation in ops.operations:
                at = {name: places[id(buffer)] for name, buffer in operation.buffers.items()}
                program.add(operation.kind, of_rows=operation.of_rows, **at, **operation.numbers)
        except MemoryError as error:
            raise BackendInitializationFailed(
                f"there is no room for a KV cache of {kv.n_blocks * kv.block_bytes} bytes and "
                f"{arena_bytes} bytes of working memory; lower kv_bytes or max_step_tokens"
            ) from error
        except ValueError as error:
            raise BackendInitializationFailed(f"the model cannot be run here: {error}") from error
        return program

    def close(self) -> None:
        """See Backend."""
        self._weights = None
        self._pool = _native.ThreadPool(1)


def _allocate_weights(n_bytes: int) -> _native.Weights:
    try:
        return _native.Weights(n_bytes)
    except MemoryError as error:
        raise ModelLoadFailed(f"there is no room for {n_bytes} bytes of weights") from error
