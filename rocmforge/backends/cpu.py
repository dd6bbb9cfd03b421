"""The CPU backend: weights packed for the native core, and forwards recorded into its programs.

backend = CpuBackend(n_threads=2)
weights = backend.load_weights(sources)
program = backend.create_program(decoder.forward, kv, limits)
logits = program.run(step)              # no Python between the operations
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rocmforge import _native
from rocmforge.backends.cpu_ops import CpuOps, aligned, plan_places
from rocmforge.backends.ops import (
    KvGeometry,
    StepInputs,
    StepLimits,
    TensorSource,
    WeightRef,
)
from rocmforge.backends.retrying_device import DeviceBuffer, RetryingDevice
from rocmforge.backends.shared_weights import shared_weights
from rocmforge.errors import (
    BackendInitializationFailed,
    HipError,
    HipErrorKind,
    InferenceFailed,
    InvalidCacheConfiguration,
    InvalidTensorShape,
    ModelLoadFailed,
)
from rocmforge.quant.formats import GGMLType, row_bytes
from rocmforge.quant.reference import decode
from rocmforge.weights_store import WeightsStore

KERNEL_TYPES: Final = tuple(_native.weight_types())
# Rows of a tensor without a kernel are decoded to F32 in pieces of about this many values.
_DECODE_VALUES: Final = 1 << 22


class CpuProgram:
    """A native program and the numpy arrays around it. Each step allocates the buffer of its logits
    [max_rows, n_vocab], launches the program and copies them back.
    """

    def __init__(
        self,
        native: _native.Program,
        n_vocab: int,
        max_rows: int,
        op_counter: memoryview | None,
        device: RetryingDevice,
    ) -> None:
        self._native: _native.Program | None = native
        self._shape = (max_rows, n_vocab)
        self._device = device
        self._buffer: DeviceBuffer | None = None
        self._counter = (
            np.zeros(1, np.int64) if op_counter is None else np.frombuffer(op_counter, np.int64)
        )

    def run(self, step: StepInputs) -> npt.NDArray[np.float32]:
        """See Program."""
        native = self._native
        if native is None:
            raise InferenceFailed("the program is closed")
        if self._buffer is not None:
            self._device.release(self._buffer)
            self._buffer = None
        n_bytes = 4 * self._shape[0] * self._shape[1]
        self._buffer = buffer = self._device.allocate_buffer_with_retry(n_bytes)
        logits = buffer.data.view(np.float32).reshape(self._shape)
        self._device.launch_with_retry(lambda: self._launch(native, step, logits), step)
        data = self._device.copy_from_device_with_retry(buffer)
        return data.view(np.float32).reshape(self._shape)[: len(step.logits_rows)]

    def _launch(
        self, native: _native.Program, step: StepInputs, logits: npt.NDArray[np.float32]
    ) -> None:
        try:
            native.run(
                step.token_ids,
                step.positions,
                step.query_start,
                step.context_len,
                step.block_tables,
                step.logits_rows,
                step.block_copies,
                logits,
                self._counter,
            )
        except ValueError as error:
            raise InferenceFailed(f"the step cannot be run: {error}") from error
        except TypeError as error:
            raise InferenceFailed(
                "the step cannot be run: its arrays must be contiguous, int32, and of the "
                "dimensions that StepPlan gives"
            ) from error

    def close(self) -> None:
        """See Program."""
        self._native = None
        self._buffer = None
        self._counter = np.zeros(1, np.int64)


class CpuBackend:
    """Weights in one arena, kernels of one ISA, threads of its own."""

    name = "cpu"
    device = "cpu"

    def __init__(
        self,
        n_threads: int | None = None,
        isa: str = "auto",
        retrying: RetryingDevice | None = None,
    ) -> None:
        """n_threads None: every core that this process may use. retrying: makes the device's calls;
        None for one with the default retries. Raises BackendInitializationFailed for an ISA that
        this machine lacks.
        """
        available = _native.available_isas()
        self.isa = available[0] if isa == "auto" else isa
        if self.isa not in available:
            raise BackendInitializationFailed(
                f"this machine has no {isa}; choose one of {', '.join(available)} or auto"
            )
        self.n_threads = n_threads or len(os.sched_getaffinity(0))
        self._pool = _native.ThreadPool(self.n_threads)
        self._retrying = retrying or RetryingDevice()
        self._weights: _native.Weights | None = None
        self._offsets: list[int] = []

    def allocate_buffer_with_retry(self, size: int) -> DeviceBuffer:
        """See RetryingDevice."""
        return self._retrying.allocate_buffer_with_retry(size)

    def copy_from_device_with_retry(self, buffer: DeviceBuffer) -> npt.NDArray[np.uint8]:
        """See RetryingDevice."""
        return self._retrying.copy_from_device_with_retry(buffer)

    def load_weights(
        self,
        tensors: Sequence[TensorSource],
        progress: Callable[[float], None] | None = None,
        store: WeightsStore | None = None,
    ) -> dict[str, WeightRef]:
        """See Backend. Raises ModelLoadFailed when there is no room for the weights."""
        refs, total = self.place_weights(tensors)

        def pack(weights: _native.Weights) -> None:
            n_done, n_bytes = 0, sum(len(tensor.data) for tensor in tensors)
            for tensor in tensors:
                self._load(weights, tensor, refs[tensor.name])
                n_done += len(tensor.data)
                if progress is not None:
                    progress(n_done / max(1, n_bytes))

        weights = shared_weights(store, total, self._pool, pack) if store is not None else None
        if weights is None:
            weights = self._allocate_weights(total)
            pack(weights)
        self._weights = weights
        return refs

    def _allocate_weights(self, n_bytes: int) -> _native.Weights:
        try:
            return self._retrying.allocate_with_retry(
                lambda: _native.Weights(n_bytes), "allocate_weights"
            )
        except HipError as error:
            if error.kind is not HipErrorKind.OutOfMemory:
                raise
            raise ModelLoadFailed(f"there is no room for {n_bytes} bytes of weights") from error

    def place_weights(self, tensors: Sequence[TensorSource]) -> tuple[dict[str, WeightRef], int]:
        """See Backend."""
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
            total += aligned(size)
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
        piece = max(16, _DECODE_VALUES // ref.cols // 16 * 16)
        for first in range(0, ref.rows, piece):
            n_rows = min(piece, ref.rows - first)
            data = bytes(tensor.data[first * stride : (first + n_rows) * stride])
            values = decode(GGMLType(tensor.type), data, n_rows * ref.cols).astype(np.float32)
            raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            weights.pack(self._pool, offset, "F32", ref.cols, first, n_rows, raw)

    def workspace_bytes(self, forward: Callable[[Any], None], limits: StepLimits) -> int:
        """See Backend."""
        ops = CpuOps(self._offsets)
        forward(ops)
        _, arena_bytes = plan_places(ops.buffers, limits)
        return arena_bytes + (4 * limits.max_rows * ops.logits.width if ops.logits else 0)

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
        n_vocab = ops.logits.width
        native = self._build(ops, n_vocab, self._weights, kv, limits)
        return CpuProgram(native, n_vocab, limits.max_rows, op_counter, self._retrying)

    def _build(
        self,
        ops: CpuOps,
        n_vocab: int,
        weights: _native.Weights,
        kv: KvGeometry,
        limits: StepLimits,
    ) -> _native.Program:
        places, arena_bytes = plan_places(ops.buffers, limits)

        def allocate() -> _native.Program:
            return _native.Program(
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
                logits_width=n_vocab,
                arena_bytes=arena_bytes,
            )

        try:
            program = self._retrying.allocate_with_retry(allocate, "allocate_program")
            for frequencies in ops.frequencies:
                program.add_frequencies(frequencies)
            for operation in ops.operations:
                at = {name: places[id(buffer)] for name, buffer in operation.buffers.items()}
                program.add(
                    operation.kind,
                    stage=operation.stage,
                    of_rows=operation.of_rows,
                    **at,
                    **operation.numbers,
                )
        except (HipError, MemoryError) as error:
            if isinstance(error, HipError) and error.kind is not HipErrorKind.OutOfMemory:
                raise
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
