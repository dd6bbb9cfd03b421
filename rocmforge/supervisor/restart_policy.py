"""When to start the next engine: at once, later, or not for a while."""

from __future__ import annotations

from rocmforge.config import SupervisorConfig


class RestartPolicy:
    """Counts restarts without progress (no token since the last one); progress forgets them.

    An engine that a passing fault kills now and then is restarted at once every time; one that
    dies before it has produced anything is started max_restarts times, ever more slowly, and then
    once per circuit_open_s.
    """

    def __init__(self, config: SupervisorConfig) -> None:
        self._config = config
        self._n_fruitless = 0

    @property
    def n_fruitless(self) -> int:
        """Restarts since the last token."""
        return self._n_fruitless

    def progress(self) -> None:
        """A token came: whatever killed the engine before did not do so this time."""
        self._n_fruitless = 0

    def delay_s(self) -> float | None:
        """Seconds to wait before the restart that is due now, which is counted; None opens the
        circuit.
        """
        config = self._config
        if self._n_fruitless >= config.max_restarts:
            return None
        # Multiplied step by step up to the cap: a power would overflow for a large max_restarts.
        delay = config.restart_delay_s
        for _ in range(self._n_fruitless):
            if delay >= config.restart_max_delay_s:
                break
            delay *= config.restart_backoff
        self._n_fruitless += 1
        return min(delay, config.restart_max_delay_s)
