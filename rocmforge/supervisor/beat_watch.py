"""For how long an engine's counters have stood still."""

from __future__ import annotations

from rocmforge.clock import monotonic_s
from rocmforge.wire.beat import BeatPage


class BeatWatch:
    """Adds up the time in which the page did not change, as seen by regular looks.

    Between two looks at most `max_look_s` are counted: when this process itself was stopped or
    starved (a suspended machine, SIGSTOP to all), the engine was most likely too, and is not to
    blame.
    """

    def __init__(self, page: BeatPage, max_look_s: float) -> None:
        self._page = page
        self._max_look_s = max_look_s
        self._seen = page.progress
        self._looked_s = monotonic_s()
        self._still_s = 0.0

    def look(self) -> float:
        """Seconds without a change, up to now."""
        now = monotonic_s()
        elapsed, self._looked_s = now - self._looked_s, now
        progress = self._page.progress
        if progress != self._seen:
            self._seen = progress
            self._still_s = 0.0
        else:
            self._still_s += min(elapsed, self._max_look_s)
        return self._still_s

    def reset(self) -> None:
        """Something else showed that the engine lives."""
        self._still_s = 0.0
        self._looked_s = monotonic_s()
