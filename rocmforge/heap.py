"""Memory that a start leaves behind, and how it is given back.

A start makes many objects that stay for good (modules, a vocabulary) and some that do not (lists of
its strings). The cyclic collector would walk through all of them again and again, which is a tenth
of the time that imports take; and what is freed stays with the C library, in holes.
"""

from __future__ import annotations

import ctypes
import gc


def pause_collection() -> None:
    """Collect no cycles until `settle`."""
    gc.disable()


def settle() -> None:
    """Take what is alive now as there for good: later collections do not walk through it."""
    gc.freeze()
    gc.enable()


def release_free_memory() -> bool:
    """Give what is free inside the C library's heaps back to the kernel; True when some was.

    False too where the library has no such call (musl). Takes about a millisecond per 10 MB.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
