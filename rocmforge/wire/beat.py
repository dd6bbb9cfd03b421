"""One shared page in which the engine counts its work, and the server watches the counters move.

The engine's loop counts its turns, and the native program counts every operation it ends: a long
step keeps counting, a stuck one does not. The page is a sealed memfd made by the server, so the
engine cannot shrink it under the server's map (which would kill the server with SIGBUS).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from enum import IntEnum
from typing import Final

from rocmforge.errors import InternalError

PAGE_BYTES: Final = mmap.PAGESIZE
# One cache line (8 slots of 8 bytes) per counter: the loop and the worker threads write theirs
# without taking the line from each other.
_LOOP_BEATS: Final = 0
_OPS_DONE: Final = 8
_PHASE: Final = 16


class EnginePhase(IntEnum):
    """What the engine is at, as it says itself in the page."""

    starting = 0
    loading = 1
    serving = 2
    stopping = 3


class BeatPage:
    """The page, mapped. The server creates it and reads; the engine attaches and writes."""

    def __init__(self, fd: int) -> None:
        """Map the page behind `fd` and own the descriptor. Raises InternalError when it is none."""
        if os.fstat(fd).st_size != PAGE_BYTES:
            raise InternalError(
                f"file descriptor {fd} is no beat page: {os.fstat(fd).st_size} bytes, "
                f"expected {PAGE_BYTES}"
            )
        self._fd = fd
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self._slots = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls) -> BeatPage:
        """A fresh page of zeros. Raises OSError when memory or descriptors are used up."""
        fd = os.memfd_create("rocmforge-beat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, PAGE_BYTES)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            return cls(fd)
        except OSError:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> BeatPage:
        """The page that the server passed as file descriptor `fd`."""
        return cls(fd)

    def fileno(self) -> int:
        """The memfd, to be passed to the engine process."""
        return self._fd

    @property
    def loop_beats(self) -> int:
        """Turns of the engine's loop."""
        return self._slots[_LOOP_BEATS]

    @property
    def ops_done(self) -> int:
        """Operations that the native program has ended."""
        return self._slots[_OPS_DONE]

    @property
    def op_counter(self) -> memoryview:
        """The slot that the native program counts in: a writable uint64 [1] view."""
        return self._slots[_OPS_DONE : _OPS_DONE + 1]

    @property
    def phase(self) -> EnginePhase:
        """What the engine is at. A value that it should never write counts as serving."""
        value = self._slots[_PHASE]
        return EnginePhase(value) if value <= EnginePhase.stopping else EnginePhase.serving

    @phase.setter
    def phase(self, phase: EnginePhase) -> None:
        self._slots[_PHASE] = int(phase)

    @property
    def progress(self) -> tuple[int, int, int]:
        """Everything that moves while the engine lives; equal twice in a row means no progress."""
        return self.loop_beats, self.ops_done, self._slots[_PHASE]

    def beat(self) -> None:
        """Count one turn of the loop."""
        self._slots[_LOOP_BEATS] += 1

    def close(self) -> None:
        """Unmap the page and close the descriptor. Views of it must be gone."""
        self._slots.release()
        self._map.close()
        os.close(self._fd)
