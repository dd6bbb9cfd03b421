"""What is known about one engine death: for the log, /props, and whoever looks for the culprit."""

from __future__ import annotations

import signal
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rocmforge.request import RequestId


class CrashCause(StrEnum):
    """Why an engine process had to be replaced."""

    killed = "killed"
    """It died of a signal that was not ours (SIGKILL, SIGSEGV, the out-of-memory killer …)."""
    exited = "exited"
    """It ended by itself, with an exit code."""
    hung = "hung"
    """Its counters stood still for too long."""
    babbling = "babbling"
    """It sent bytes that are no message, or messages that break the protocol."""
    disconnected = "disconnected"
    """It closed its socket and stayed."""
    failed = "failed"
    """It said itself that it cannot start or go on."""
    not_started = "not_started"
    """The system could not start the process."""


@dataclass(frozen=True, kw_only=True)
class CrashReport:
    """One engine death.

    phase: what the engine said it was at (`EnginePhase`). in_flight: the requests that the engine
    had been given and not finished, in arrival order. n_tokens: tokens that it had sent.
    """

    cause: CrashCause
    detail: str
    pid: int | None
    exit_code: int | None
    signal_name: str | None
    phase: str
    uptime_s: float
    n_tokens: int
    in_flight: tuple[RequestId, ...]
    died_at_unix_s: float

    def as_fields(self) -> dict[str, Any]:
        """The report as the fields of a log line; request ids are cut to the first sixteen."""
        fields = asdict(self) | {"cause": str(self.cause), "n_in_flight": len(self.in_flight)}
        fields["in_flight"] = list(self.in_flight[:16])
        return fields


def describe_exit(returncode: int | None) -> tuple[int | None, str | None]:
    """A `subprocess` return code as (exit code, signal name); both None while it still runs."""
    if returncode is None:
        return None, None
    if returncode >= 0:
        return returncode, None
    try:
        return None, signal.Signals(-returncode).name
    except ValueError:
        # Real-time signals have no name of their own.
        return None, f"signal {-returncode}"
