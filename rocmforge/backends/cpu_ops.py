"""Recording a forward for the native core.

Every handle is a `Buffer`, and what `CpuOps` records is a list of native operations over buffers
that have no place yet. `plan_places` then lays the buffers out in one arena, two sharing a place
when they are never needed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rocmforge import _native
from rocmforge.backends.ops import RopeKind, StepLimits, WeightRef
from rocmforge.errors import InferenceFailed, InvalidTensorShape

_ALIGNMENT: Final = 64
_Kind = _native.OpKind


def aligned(n_bytes: int) -> int:
    """n_bytes, rounded up to whole cache lines."""
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


@dataclass(eq=False)
class Buffer:
    """A handle while recording: rows (T, or R when `of_rows`) of `width` values, floats or, for
    weights of type `quantized_for`, quantised. `first` … `last` are the stages that need it."""

    width: int
    of_rows: bool
    quantized_for: str = "F32"
    first: int = -1
    last: int = -1
    is_logits: bool = False
    quantized: dict[str, Buffer] = field(default_factory=dict)
    """What it was quantised to, by the kind of blocks, since it was written last."""

    def n_bytes(self, limits: StepLimits) -> int:
        """Its size in the largest step."""
        n_rows = limits.max_rows if self.of_rows else limits.max_tokens
        return aligned(_native.act_bytes(self.quantized_for, self.width, n_rows))


@dataclass(frozen=True)
class _Recorded:
    """An operation; those of one stage run in one loop (native/program.h)."""

    kind: _native.OpKind
    stage: int
    of_rows: bool
    buffers: dict[str, Buffer]
    numbers: dict[str, Any]

    def can_share(self, kind: _native.OpKind, of_rows: bool, buffers: dict[str, Buffer]) -> bool:
        """Whether an operation may join this one's stage: row-wise ones one another, matmuls one
        another when neither needs what the other makes."""
        if self.of_rows != of_rows or _Kind.Attention in (self.kind, kind):
            return False
        if self.kind == _Kind.Matmul:
            return kind == _Kind.Matmul and buffers["x"] is self.buffers["x"]
        return kind != _Kind.Matmul


class CpuOps:
    """`Ops` that records. Operations are described in native/program.h."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self._offsets = offsets
        self._rope_tables: dict[tuple[bytes, float], Buffer] = {}
        self.frequencies: list[list[float]] = []
        self.operations: list[_Recorded] = []
        self.buffers: list[Buffer] = []
        self.logits: Buffer | None = None

    def _buffer(self, width: int, of_rows: bool, quantized_for: str = "F32") -> Buffer:
        buffer = Buffer(width, of_rows, quantized_for)
        self.buffers.append(buffer)
        return buffer

    def _record(
        self, kind: _native.OpKind, of_rows: bool, buffers: dict[str, Buffer], **numbers: Any
    ) -> None:
        stage = 0
        if self.operations:
            before = self.operations[-1]
            stage = before.stage + (not before.can_share(kind, of_rows, buffers))
        for buffer in buffers.values():
            buffer.first = stage if buffer.first < 0 else buffer.first
            buffer.last = stage
        self.operations.append(_Recorded(kind, stage, of_rows, buffers, numbers))

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
            bias=_native.NONE if bias is None else self._offsets[bias.index],
            type=weight.type_name,
        )
        return out

    def _as_input(self, x: Buffer, type_name: str) -> Buffer:
        """x itself, or its quantised copy, made once for all weights of a kind."""
        kind = _native.act_kind(type_name)
        if kind == "float":
            return x
        if kind not in x.quantized:
            x.quantized[kind] = self._buffer(x.width, x.of_rows, type_name)
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
    sizes = {id(b): b.n_bytes(limits) for b in buffers}
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
