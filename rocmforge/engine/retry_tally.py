"""Counts the retries of device operations, for the server's metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

from rocmforge.wire.protocol import RETRY_BUCKETS, RetryCount


@dataclass
class _Count:
    attempts: int = 0
    successes: int = 0
    failures: int = 0
    n_retries: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * len(RETRY_BUCKETS))


class RetryTally:
    """A RetryObserver: totals per operation since the engine's start."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def record_gpu_retry_attempt(self, operation: str, n: int) -> None:
        """Retry number n of one operation is about to be made."""
        self._of(operation).attempts += 1

    def record_gpu_retry_success(self, operation: str, n: int) -> None:
        """An operation succeeded after n retries."""
        self._of(operation).successes += 1
        self._observe(operation, n)

    def record_gpu_retry_failed(self, operation: str, n: int) -> None:
        """An operation was given up after n retries."""
        self._of(operation).failures += 1
        self._observe(operation, n)

    def counts(self) -> tuple[RetryCount, ...]:
        """The totals, by operation."""
        return tuple(
            RetryCount(
                operation, c.attempts, c.successes, c.failures, tuple(c.buckets), c.n_retries
            )
            for operation, c in sorted(self._counts.items())
        )

    def _of(self, operation: str) -> _Count:
        return self._counts.setdefault(operation, _Count())

    def _observe(self, operation: str, n: int) -> None:
        count = self._of(operation)
        count.n_retries += n
        for i, bound in enumerate(RETRY_BUCKETS):
            count.buckets[i] += n <= bound
