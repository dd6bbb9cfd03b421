"""The engine process must not outlive its server, and dies first when memory runs out."""

from __future__ import annotations

import ctypes
import signal
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
# Out of 1000: the kernel's out-of-memory killer takes the engine (which is restarted) long before
# the server (which holds every client's connection and journal).
_OOM_SCORE: Final = 800


def die_with_parent() -> bool:
    """Ask the kernel to kill this process when the thread that started it ends; True when it will.

    To be called first thing in the engine. A parent that died before the call is noticed by its
    closed socket instead, and so is every parent where the kernel has no such call.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0)


def offer_to_oom_killer() -> bool:
    """Make this process the first to go when memory runs out; True when the kernel took it."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), "ascii")
    except OSError:
        # Some containers mount /proc read-only; the engine serves all the same.
        return False
    return True
