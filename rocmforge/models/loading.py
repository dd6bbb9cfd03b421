"""From a GGUF file to a model on a backend: every tensor checked before one is copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rocmforge.backends.ops import Backend, Ops, TensorSource, WeightRef
from rocmforge.errors import InvalidTensorShape, TensorNotFound
from rocmforge.gguf.metadata import Metadata
from rocmforge.gguf.reader import GGUFFile, TensorInfo
from rocmforge.models.decoder import Decoder, required_tensors
from rocmforge.models.families import decoder_spec
from rocmforge.models.rope import frequencies
from rocmforge.models.spec import DecoderSpec
from rocmforge.quant.formats import GGMLType, format_by_name, row_bytes
from rocmforge.quant.reference import decode
from rocmforge.weights_store import WeightsStore, file_identity

Buf = TypeVar("Buf")
_LISTED = 12


@dataclass(frozen=True)
class LoadedModel:
    """A model whose weights a backend holds; the file is closed."""

    spec: DecoderSpec
    metadata: Metadata
    weights: Mapping[str, WeightRef]
    decoder: Decoder
    weight_types: Mapping[str, int]
    """ggml type → number of tensors that are computed in it."""
    decoded_types: Mapping[str, int]
    """ggml type → number of matrices that were decoded to F32, for want of a kernel."""
    weight_bytes: int
    weights_source: str = "file"
    """`shared` when an engine before this one had packed them, else `file`."""

    def forward(self, ops: Ops[Buf]) -> None:
        """The forward pass, for Backend.create_program."""
        self.decoder.forward(ops)


def load_model(
    path: str | Path,
    backend: Backend,
    *,
    progress: Callable[[float], None] | None = None,
    before_copy: Callable[[Decoder, int], None] | None = None,
    store_fd: int | None = None,
) -> LoadedModel:
    """Read, check and copy a model; `progress` gets the share that is done, 0…1.

    before_copy: called with the decoder and the bytes that its weights will take, while none is
    copied yet; what it raises ends the load. store_fd: a weights store to take them from or to put
    them into.

    Raises the errors of GGUFFile.open and decoder_spec, TensorNotFound and InvalidTensorShape (each
    listing all tensors concerned), and the backend's when it cannot hold the weights.
    """
    with GGUFFile.open(path) as file:
        spec = decoder_spec(file.metadata, file.tensors)
        names = _check_tensors(spec, file.tensors)
        inv_freq, magnitude = frequencies(spec, _rope_factors(spec, file))
        sources = [
            TensorSource(
                name, file.tensors[name].type, file.tensors[name].shape, file.tensor_bytes(name)
            )
            for name in names
        ]
        try:
            if before_copy is not None:
                places, n_bytes = backend.place_weights(sources)
                before_copy(Decoder(spec, places, inv_freq, magnitude), n_bytes)
            released = _Released(file, sources, progress)
            if store_fd is None:
                weights, was_reused = backend.load_weights(sources, released), False
            else:
                store = _store(store_fd, file, backend, sources)
                weights = backend.load_weights(sources, released, store)
                was_reused = store.was_reused
        finally:
            for source in sources:
                source.data.release()
        kept = Counter(ref.type_name for ref in weights.values())
        decoded = Counter(
            file.tensors[name].type.name
            for name, ref in weights.items()
            if ref.type_name != file.tensors[name].type.name and len(file.tensors[name].shape) > 1
        )
        return LoadedModel(
            spec=spec,
            metadata=file.metadata,
            weights=weights,
            decoder=Decoder(spec, weights, inv_freq, magnitude),
            weight_types=dict(kept),
            decoded_types=dict(decoded),
            weight_bytes=sum(_ref_bytes(ref) for ref in weights.values()),
            weights_source="shared" if was_reused else "file",
        )


def _store(
    fd: int, file: GGUFFile, backend: Backend, sources: Sequence[TensorSource]
) -> WeightsStore:
    """The store behind a file descriptor, for these weights of this backend."""
    places, n_bytes = backend.place_weights(sources)
    packing = repr((backend.name, n_bytes, list(places.values())))
    return WeightsStore(fd, file_identity(file.shard_paths, packing))


class _Released:
    """Progress of a load that goes through `sources` in order: what is done need not stay in
    memory, where it would count beside the copy that the backend has made.
    """

    def __init__(
        self,
        file: GGUFFile,
        sources: Sequence[TensorSource],
        progress: Callable[[float], None] | None,
    ) -> None:
        self._file = file
        self._sources = sources
        self._progress = progress
        self._n_bytes = sum(len(source.data) for source in sources)
        self._next = 0
        self._n_before = 0
        self._n_released = 0

    def __call__(self, done: float) -> None:
        # Rounded down: what is still to be read would be read from the file again.
        n_done = int(done * self._n_bytes)
        while self._next < len(self._sources):
            source = self._sources[self._next]
            size = len(source.data)
            end = min(size, n_done - self._n_before)
            self._file.release(source.name, self._n_released, end)
            if end < size:
                self._n_released = max(end, self._n_released)
                break
            self._next, self._n_before, self._n_released = self._next + 1, self._n_before + size, 0
        if self._progress is not None:
            self._progress(done)


def _check_tensors(spec: DecoderSpec, tensors: Mapping[str, TensorInfo]) -> list[str]:
    """The names of all weights to load, after finding each with its shape."""
    required = required_tensors(spec)
    missing = [name for name in required if name not in tensors]
    if missing:
        raise TensorNotFound(
            f"the file lacks {len(missing)} tensors that {spec.architecture} needs: "
            + _listing(missing)
        )
    misshapen = [
        f"{name} is {tensors[name].shape}, expected {shape}"
        for name, shape in required.items()
        if tensors[name].shape != shape
    ]
    if misshapen:
        raise InvalidTensorShape(
            f"{len(misshapen)} tensors do not fit the metadata: {_listing(misshapen)}"
        )
    return list(required)


def _listing(items: list[str]) -> str:
    rest = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _rope_factors(spec: DecoderSpec, file: GGUFFile) -> npt.NDArray[np.float32] | None:
    """The file's own divisors of the rotary frequencies, if it has any."""
    name = "rope_freqs.weight"
    if spec.rope_scaling.kind == "longrope" and not spec.has_rope_freqs:
        extended = spec.n_ctx_train > spec.rope_scaling.original_context_length
        name = "rope_factors_long.weight" if extended else "rope_factors_short.weight"
    info = file.tensors.get(name)
    if info is None:
        if spec.rope_scaling.kind == "longrope":
            raise TensorNotFound(
                f"the file lacks {name}, which rope scaling of type longrope needs"
            )
        return None
    n = spec.rope_dim // 2
    if info.shape != (n,):
        raise InvalidTensorShape(f"{name} is {info.shape}, expected ({n},)")
    data = file.tensor_bytes(name)
    factors = decode(info.type, bytes(data), n)
    data.release()
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise InvalidTensorShape(f"{name} holds values that are not positive numbers")
    return factors


def _ref_bytes(ref: WeightRef) -> int:
    return ref.rows * row_bytes(GGMLType(format_by_name(ref.type_name).type), ref.cols)
