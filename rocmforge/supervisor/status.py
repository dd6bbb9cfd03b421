"""What the server can say about its engine at any moment, without asking it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from rocmforge.errors import RocmForgeError
from rocmforge.supervisor.crash_report import CrashReport
from rocmforge.wire.protocol import EngineFacts, EngineStats, RetryCount


class EngineState(StrEnum):
    """Life of the engine as the server sees it.

        starting → loading → ready ⇄ recovering → circuit_open → recovering …
        starting | loading → failed (the load can never succeed)          any → stopped

    An engine that dies before it was ever ready also passes through `recovering`.
    """

    starting = "starting"
    loading = "loading"
    ready = "ready"
    recovering = "recovering"
    circuit_open = "circuit_open"
    failed = "failed"
    stopped = "stopped"


@dataclass(frozen=True, kw_only=True)
class EngineStatus:
    """A snapshot; counters count from the start of the server, over all engine processes.

    facts: those of the last engine that was ready, None before. load_percent: 0–100, of the load
    that runs now or ran last. stats: gauges of the running engine, counters (`*_total`) summed over
    all of them. beat_age_s: for how long the engine's counters have not moved, None without a
    process. circuit_closes_in_s: None unless the circuit is open. last_error: why the engine failed
    last. crashes: the last reports, oldest first.
    """

    state: EngineState
    facts: EngineFacts | None
    load_phase: str
    load_percent: float
    pid: int | None
    restarts_total: int
    restarts_by_cause: Mapping[str, int]
    requests_resumed_total: int
    n_live: int
    stats: EngineStats
    beat_age_s: float | None
    circuit_closes_in_s: float | None
    last_error: RocmForgeError | None
    crashes: tuple[CrashReport, ...]

    @property
    def is_ready(self) -> bool:
        """True when a request would be served now."""
        return self.state is EngineState.ready


def sum_counters(before: EngineStats, current: EngineStats) -> EngineStats:
    """`current` with the counters of earlier engines added: a restart must not set them back."""
    totals = {
        name: getattr(before, name) + getattr(current, name)
        for name in EngineStats.__struct_fields__
        if name.endswith("_total")
    }
    retries = sum_retries(before.retries, current.retries)
    return msgspec.structs.replace(current, **totals, retries=retries)


def sum_retries(*counts: tuple[RetryCount, ...]) -> tuple[RetryCount, ...]:
    """Counts of several engines, added up by operation."""
    totals: dict[str, RetryCount] = {}
    for count in (count for some in counts for count in some):
        if (so_far := totals.get(count.operation)) is not None:
            count = RetryCount(
                count.operation,
                so_far.attempts + count.attempts,
                so_far.successes + count.successes,
                so_far.failures + count.failures,
                tuple(map(sum, zip(so_far.buckets, count.buckets, strict=True))),
                so_far.n_retries + count.n_retries,
            )
        totals[count.operation] = count
    return tuple(totals.values())
