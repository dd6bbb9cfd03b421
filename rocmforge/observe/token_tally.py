"""The metrics that every token touches.

The client library's counters and histograms take a lock and walk their buckets at each observation,
which is a good part of what a token costs a server. One event loop counts here, and the library
sees the numbers when they are scraped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString


class TokenTally:
    """A counter of tokens and a histogram of the gaps between them, for one thread.

    counter, gaps: name and help of each. bounds_s: upper bounds of the buckets, ascending, without
    the infinite one.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        counter: tuple[str, str],
        gaps: tuple[str, str],
        bounds_s: Sequence[float],
    ) -> None:
        self._counter = counter
        self._gaps = gaps
        self._bounds_s = tuple(bounds_s)
        self._labels = [_label(bound_s) for bound_s in (*bounds_s, float("inf"))]
        self._in_bucket = [0] * len(self._labels)
        self._n_tokens = 0
        self._gaps_s = 0.0
        registry.register(self)

    def count(self, gap_s: float | None = None) -> None:
        """One token; gap_s since the one before it, if there was one."""
        self._n_tokens += 1
        if gap_s is not None:
            self._in_bucket[bisect_left(self._bounds_s, gap_s)] += 1
            self._gaps_s += gap_s

    def describe(self) -> Iterable[Metric]:
        """The families without their samples, so that no other metric takes their names."""
        return [CounterMetricFamily(*self._counter), HistogramMetricFamily(*self._gaps)]

    def collect(self) -> Iterable[Metric]:
        """The numbers of now; buckets are cumulative."""
        yield CounterMetricFamily(*self._counter, self._n_tokens)
        buckets, n_gaps = [], 0
        for label, n_here in zip(self._labels, self._in_bucket, strict=True):
            n_gaps += n_here
            buckets.append((label, n_gaps))
        yield HistogramMetricFamily(*self._gaps, buckets=buckets, sum_value=self._gaps_s)


def _label(bound_s: float) -> str:
    return str(floatToGoString(bound_s))  # type: ignore[no-untyped-call]  # no hint there
