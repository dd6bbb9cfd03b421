"""The one source of time, so that tests can tell it."""

from __future__ import annotations

import time


def monotonic_s() -> float:
    """Seconds since an arbitrary point; never goes back. For durations and deadlines."""
    return time.monotonic()


def unix_s() -> float:
    """Seconds since 1970 (UTC). For time stamps that people and clients see."""
    return time.time()
