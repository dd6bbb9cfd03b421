"""Weights of the CPU backend in memory that outlives it: see weights_store."""

from __future__ import annotations

import os
from collections.abc import Callable

from rocmforge import _native
from rocmforge.observe.log import get_logger
from rocmforge.weights_store import (
    HEADER_BYTES,
    StoreHeader,
    WeightsStore,
    read_header,
    read_only,
    seal,
)

_log = get_logger(__name__)


def shared_weights(
    store: WeightsStore,
    n_bytes: int,
    pool: _native.ThreadPool,
    pack: Callable[[_native.Weights], None],
) -> _native.Weights | None:
    """The weights that the store holds, or those that `pack` writes into an empty one; None when
    neither is possible: the caller needs memory of its own then.
    """
    try:
        if (header := read_header(store.fd)) is not None:
            return _attach(store, header, n_bytes, pool)
        if not os.fstat(store.fd).st_size:
            return _fill(store, n_bytes, pool, pack)
        reason = "it was left half-written"
    except (OSError, _RefusedError) as error:
        reason = str(error)
    _log.warning("shared_weights_refused", reason=reason)
    return None


class _RefusedError(Exception):
    """The store holds something else; the message says what."""


def _attach(
    store: WeightsStore, header: StoreHeader, n_bytes: int, pool: _native.ThreadPool
) -> _native.Weights:
    if header.identity != store.identity or header.n_bytes != n_bytes:
        raise _RefusedError("it holds another model")
    weights = _map_read_only(store.fd, n_bytes)
    if weights.checksum(pool) != header.checksum:
        raise _RefusedError("its content does not match its checksum")
    store.was_reused = True
    return weights


def _fill(
    store: WeightsStore,
    n_bytes: int,
    pool: _native.ThreadPool,
    pack: Callable[[_native.Weights], None],
) -> _native.Weights:
    os.ftruncate(store.fd, HEADER_BYTES + n_bytes)
    writable = _map(store.fd, n_bytes, writable=True)
    pack(writable)
    header = StoreHeader(n_bytes, store.identity, writable.checksum(pool))
    # Unmaps it: the kernel seals no file that somebody may write to through a map.
    del writable
    try:
        seal(store.fd, header)
    except OSError as error:
        # These weights are whole; the next engine packs them again.
        _log.warning("shared_weights_not_sealed", error=str(error))
    return _map_read_only(store.fd, n_bytes)


def _map_read_only(fd: int, n_bytes: int) -> _native.Weights:
    with read_only(fd) as reader:
        return _map(reader, n_bytes, writable=False)


def _map(fd: int, n_bytes: int, *, writable: bool) -> _native.Weights:
    try:
        return _native.Weights.of_file(fd, HEADER_BYTES, n_bytes, writable)
    except ValueError as error:
        raise _RefusedError(str(error)) from error
