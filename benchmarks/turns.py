"""Timing on machines that are not idle: actions take turns, and waiting for a core is measured."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from peers import core_ns


@dataclass
class Turns:
    """What an action's turns took: seconds per call, nanoseconds on a core and waiting for one."""

    seconds: list[float] = field(default_factory=list)
    run_ns: int = 0
    wait_ns: int = 0

    @property
    def median_s(self) -> float:
        """Seconds of the middle turn."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The middle half of the turns, relative to the median."""
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float((high - low) / self.median_s)

    @property
    def waited(self) -> float | None:
        """Share of the runnable time without a core; None where the system does not tell."""
        total = self.run_ns + self.wait_ns
        return self.wait_ns / total if total else None


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def alternate(actions: list[Callable[[], object]], turns: int, min_s: float) -> list[Turns]:
    """Time the actions in turns; one lasts at least about min_s."""
    for action in actions:
        action()  # pages mapped, threads awake
    n_calls = [max(1, round(min_s / max(timed(action), 1e-7))) for action in actions]
    results = [Turns() for _ in actions]
    for _ in range(turns):
        for action, n, result in zip(actions, n_calls, results, strict=True):
            run_ns, wait_ns = core_ns()
            result.seconds.append(timed(lambda a=action, n=n: [a() for _ in range(n)]) / n)
            run_after, wait_after = core_ns()
            result.run_ns += run_after - run_ns
            result.wait_ns += wait_after - wait_ns
    return results


class Reader:
    """Plain reads of more memory than the caches hold, by threads that stay alive."""

    def __init__(self, n_threads: int, n_bytes: int) -> None:
        self.n_bytes = n_bytes // (4 * n_threads) * 4 * n_threads
        values = np.ones(self.n_bytes // 4, np.float32)
        self._parts = np.split(values, n_threads)
        self._pool = ThreadPoolExecutor(n_threads)

    def __call__(self) -> None:
        """Read everything once; dot releases the GIL."""
        list(self._pool.map(lambda part: np.dot(part, part), self._parts))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()


def cpu_name() -> str:
    """The processor's own name where the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
