"""Keeps the weights from one engine to the next."""

from __future__ import annotations

import contextlib
import os

from rocmforge.observe.log import get_logger
from rocmforge.weights_store import create_store, file_identity, read_header

_log = get_logger(__name__)


class WeightsKeeper:
    """Owns the weights store (weights_store), which it never maps: a file in memory that shrinks
    under a map would kill the server.
    """

    def __init__(self, model_path: str, first_fd: int | None = None) -> None:
        """first_fd: the store that an engine was launched with already; it is owned from here."""
        self._path = model_path
        self._fd = first_fd
        self._identity = self._model_identity()
        self._was_whole = False

    def fd_for_next_life(self) -> int | None:
        """The store for the engine that is about to start; None where there is none to be had.

        The same again while it is whole and the model's file is what it was. One that was left
        half-written, or holds what the file no longer says, is replaced by an empty one.
        """
        identity = self._model_identity()
        if self._fd is not None and identity == self._identity and self._is_usable(self._fd):
            return self._fd
        self.close()
        self._identity = identity
        self._fd, self._was_whole = create_store(), False
        if self._fd is None:
            _log.warning("no_shared_weights", reason="the kernel gives no memory for them")
        return self._fd

    def engine_ready(self, weights_source: str) -> None:
        """The engine says where its weights are from. One that was given a whole store and did not
        use it found something wrong: nobody shall be given that again.
        """
        if self._was_whole and weights_source != "shared":
            self.close()

    def close(self) -> None:
        """Let the memory go once no engine uses it."""
        if self._fd is not None:
            # Closing a file in memory cannot lose anything.
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._fd, self._was_whole = None, False

    def _is_usable(self, fd: int) -> bool:
        self._was_whole = read_header(fd) is not None
        return self._was_whole or os.fstat(fd).st_size == 0

    def _model_identity(self) -> bytes | None:
        try:
            return file_identity([self._path])
        except OSError:
            # The engine will say what is wrong with the file.
            return None
