"""The ops contract: the seam between models and machines.

A model's forward is written once against `Ops` (models/decoder.py). There are two kinds of
implementation: eager ones compute at once (backends/reference.py, the numpy oracle), recording ones
describe a program that is replayed for every step (backends/cpu.py → the native core). So a model
may not look at values, only pass handles on; T (tokens) and R (rows whose logits are wanted) are
symbolic while recording.

Legend: T tokens in the step, R logits rows, E model dim, H query heads, K kv heads, D head dim, F
ffn dim, V vocab. All activations are float32, row-major. Weights are in the file's own type.

Numerics every implementation keeps (so that a token never depends on what else is in the batch):
  * a row's result never depends on other rows, on T, or on the number of threads;
  * matmul with quantised weights quantises each activation row per block (32 values for formats
    with blocks of 32, 256 for the K formats and IQ4_XS), products inside a block are summed as
    integers (exact), the float sum over blocks goes in ascending order with one accumulator per
    output, each step one fused multiply-add;
  * float weights: columns in ascending order with one accumulator per output, fused multiply-add;
  * attention walks the keys in splits of ATTENTION_SPLIT absolute positions, combined in ascending
    order, and reads keys and values as the cache stores them, those of its own chunk too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rocmforge.quant.formats import GGMLType
from rocmforge.weights_store import WeightsStore

ATTENTION_SPLIT = 128

RopeKind = Literal["norm", "neox"]
"""norm rotates pairs (2i, 2i+1), as in llama's GGUF files; neox rotates (i, i + D/2)."""

Buf = TypeVar("Buf")
"""An activation handle: an array when eager, a buffer descriptor when recording."""


@dataclass(frozen=True)
class WeightRef:
    """A weight that the backend holds: `rows` outputs of `cols` inputs (a vector has rows 1)."""

    index: int
    name: str
    rows: int
    cols: int
    type_name: str


class Ops(Protocol, Generic[Buf]):
    """About a dozen operations. Shapes are checked by the implementation against the weight's."""

    def embed(self, table: WeightRef) -> Buf:
        """Rows of `table` [V, E] for the step's token ids → [T, E], exactly decoded."""
        ...

    def rms_norm(self, x: Buf, weight: WeightRef, eps: float) -> Buf:
        """x / sqrt(mean(x²) + eps) · weight, over each row → same shape."""
        ...

    def head_rms_norm(self, x: Buf, weight: WeightRef, eps: float, n_heads: int) -> Buf:
        """rms_norm over each head's D values of x [T, n_heads · D], in place; weight [D]."""
        ...

    def matmul(self, x: Buf, weight: WeightRef, bias: WeightRef | None = None) -> Buf:
        """x [T, cols] · weightᵀ (+ bias [rows]) → [T, rows]."""
        ...

    def add(self, x: Buf, y: Buf) -> Buf:
        """x + y, in place into x (the residual stream)."""
        ...

    def rope(
        self,
        x: Buf,
        n_heads: int,
        head_dim: int,
        rope_dim: int,
        kind: RopeKind,
        inv_freq: npt.NDArray[np.float32],
        magnitude: float,
    ) -> Buf:
        """Rotate the first rope_dim values of each head of x [T, n_heads · D], in place.

        Angle of pair i at position p is float32(p · inv_freq[i]) computed in float64 (inv_freq
        float32 [rope_dim/2], scaling already applied); cos and sin are multiplied with `magnitude`
        (YaRN).
        """
        ...

    def kv_append(self, layer: int, k: Buf, v: Buf) -> None:
        """Store k, v [T, K · D] at the step's positions through the block tables, in the cache's
        type.
        """
        ...

    def attention(self, layer: int, q: Buf, n_heads: int, scale: float, window: int) -> Buf:
        """Causal attention of q [T, H · D] over the layer's cache → [T, H · D].

        Query head h reads kv head h // (H / K). window > 0: only the last `window` keys, itself
        included.
        """
        ...

    def swiglu(self, gate: Buf, up: Buf) -> Buf:
        """silu(gate) · up → [T, F] (in place into gate)."""
        ...

    def scale(self, x: Buf, factor: float) -> Buf:
        """x · factor, in place."""
        ...

    def select_rows(self, x: Buf) -> Buf:
        """Only the step's `logits_rows` of x → [R, E]."""
        ...

    def output(self, x: Buf) -> None:
        """Mark x [R, V] as the program's result: the logits."""
        ...


@dataclass(frozen=True)
class TensorSource:
    """A tensor to load: `data` is its bytes in the file's layout, `shape` numpy order (rows, cols)
    or (n,).
    """

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True, kw_only=True)
class KvGeometry:
    """Size and type of the paged KV cache (`kv_type` f16 or f32; head_dim for keys and values
    alike).
    """

    n_layers: int
    n_kv_heads: int
    head_dim: int
    n_blocks: int
    block_tokens: int
    kv_type: str

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers, keys and values."""
        item = 2 if self.kv_type == "f16" else 4
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * self.block_tokens * item


@dataclass(frozen=True, kw_only=True)
class StepLimits:
    """The largest step a program must be able to run."""

    max_tokens: int
    max_sequences: int
    max_rows: int
    max_blocks_per_sequence: int


class StepInputs(Protocol):
    """The arrays of engine/step_plan.py `StepPlan`, which documents them (backends do not import
    it).
    """

    @property
    def token_ids(self) -> npt.NDArray[np.int32]: ...
    @property
    def positions(self) -> npt.NDArray[np.int32]: ...
    @property
    def query_start(self) -> npt.NDArray[np.int32]: ...
    @property
    def context_len(self) -> npt.NDArray[np.int32]: ...
    @property
    def block_tables(self) -> npt.NDArray[np.int32]: ...
    @property
    def logits_rows(self) -> npt.NDArray[np.int32]: ...
    @property
    def block_copies(self) -> npt.NDArray[np.int32]: ...


class Program(Protocol):
    """A recorded forward with its KV cache and working memory."""

    def run(self, step: StepInputs) -> npt.NDArray[np.float32]:
        """Run one step → logits float32 [R, V], valid until the next call. Releases the GIL.

        Raises InferenceFailed (bad ids, non-finite logits are the caller's to check) or a
        BackendError.
        """
        ...

    def close(self) -> None:
        """Free the KV cache and the working memory."""
        ...


class Backend(Protocol):
    """A device that holds weights and runs programs."""

    name: str
    device: str
    isa: str
    n_threads: int

    def place_weights(self, tensors: Sequence[TensorSource]) -> tuple[dict[str, WeightRef], int]:
        """Where load_weights will put them, and the bytes that all of them will take."""
        ...

    def workspace_bytes(self, forward: Callable[[Any], None], limits: StepLimits) -> int:
        """Working memory of a program of `forward`, its logits included, after place_weights."""
        ...

    def load_weights(
        self,
        tensors: Sequence[TensorSource],
        progress: Callable[[float], None] | None = None,
        store: WeightsStore | None = None,
    ) -> dict[str, WeightRef]:
        """Copy all weights into one arena of this backend; `progress` gets 0…1. The sources may be
        closed after. With a store they are taken from it, or put into it for the next engine,
        where that is possible.
        """
        ...

    def create_program(
        self,
        forward: Callable[[Any], None],
        kv: KvGeometry,
        limits: StepLimits,
        op_counter: memoryview | None = None,
    ) -> Program:
        """Record `forward(ops)`. `op_counter`: 8 shared bytes that count finished ops (uint64), the
        heartbeat.
        """
        ...

    def close(self) -> None:
        """Free the weights and stop the threads."""
        ...
