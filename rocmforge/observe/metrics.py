"""All metrics, declared in one place; the prefix is `rocmforge_`.

What the server process sees itself (requests, latencies) is counted here; what the engine counts is
read from its status at each scrape, summed over restarts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric

from rocmforge.clock import monotonic_s
from rocmforge.observe.token_tally import TokenTally

PREFIX: Final = "rocmforge_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# From a token of a small model (1 ms) to a prompt of a large one (minutes).
_LATENCY_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
FULL_REASONS: Final = ("requests", "tokens")
SLOW_STAGES: Final = ("headers", "body", "reader")
# Shorter than a usual scrape interval (15 s), long enough for a few steps of a slow model.
RATE_WINDOW_S: Final = 10.0

ENGINE_GAUGES: Final = {
    "engine_up": "1 while the engine is ready and shows signs of life",
    "engine_load_percent": "How far the load has come that runs now or ran last",
    "active_requests": "Sequences that the engine is working on",
    "queue_length": "Sequences that wait; without an engine, all live requests",
    "live_requests": "Requests accepted and not ended",
    "cache_pages_used": "Pages of the KV cache held by sequences",
    "cache_pages_cached": "Pages kept for prompts that begin alike; given up on demand",
    "cache_pages_total": "Pages of the KV cache",
    "last_step_seconds": "How long the engine's last step took",
}
ENGINE_COUNTERS: Final = {
    "engine_steps": "Steps of the engine",
    "engine_prompt_tokens": "Prompt tokens computed; those found in the prefix cache are not",
    "engine_generated_tokens": "Tokens sampled",
    "engine_prefill_seconds": "Time in steps, the share of prompts",
    "engine_decode_seconds": "Time in steps, the share of generation",
    "prefix_cache_queries": "Sequences looked up in the prefix cache",
    "prefix_cache_hits": "Lookups that found something",
    "prefix_cache_hit_tokens": "Prompt tokens that were found",
    "preemptions": "Sequences set back because the cache was full",
    "requests_resumed": "Requests handed on to a new engine",
    "gpu_calls": "Allocations, launches and copies of the device",
    "faults_injected": "Device calls that were made to fail, for tests",
    "memory_recoveries": "Steps that found no memory and were tried again, smaller",
}
RETRY_COUNTERS: Final = {
    "gpu_retry_attempts": "Retries of device operations",
    "gpu_retry_success": "Device operations that succeeded after a retry",
    "gpu_retry_failed": "Device operations given up",
}
RETRY_HISTOGRAM: Final = "gpu_retry_attempt_histogram"


class RetryReading(Protocol):
    """What became of the retries of one operation (wire.protocol.RetryCount)."""

    @property
    def operation(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def successes(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def buckets(self) -> tuple[int, ...]: ...
    @property
    def n_retries(self) -> int: ...


class EngineReading(Protocol):
    """What the engine's side looks like at a scrape.

    gauges, counters: exactly the names of ENGINE_GAUGES and ENGINE_COUNTERS. restarts: per cause,
    those that never happened included, so that a first one shows as an increase. states: every
    state, true for the one that is. retries: one per operation, with buckets at retry_bounds. info:
    what really runs; empty before an engine was ready.
    """

    @property
    def gauges(self) -> Mapping[str, float]: ...
    @property
    def counters(self) -> Mapping[str, float]: ...
    @property
    def restarts(self) -> Mapping[str, int]: ...
    @property
    def states(self) -> Mapping[str, bool]: ...
    @property
    def retries(self) -> Sequence[RetryReading]: ...
    @property
    def retry_bounds(self) -> Sequence[int]: ...
    @property
    def info(self) -> Mapping[str, str]: ...


class Metrics:
    """One registry. `read_engine` is asked at every scrape; `now_s` is the clock of the rate."""

    def __init__(
        self, read_engine: Callable[[], EngineReading], now_s: Callable[[], float] = monotonic_s
    ) -> None:
        # A time stamp beside every series triples what a scrape costs and tells nothing.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no hint here
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(read_engine))
        self._started = self._counter("requests_started", "Requests accepted")
        self._ended = {
            state: self._counter(f"requests_{state}", f"Requests that ended as {state}")
            for state in ("completed", "failed", "cancelled")
        }
        self._prompt = self._counter("request_prompt_tokens", "Prompt tokens of accepted requests")
        self._tokens = TokenTally(
            self.registry,
            counter=(f"{PREFIX}tokens_generated", "Tokens that reached the server"),
            gaps=(f"{PREFIX}inter_token_latency_seconds", "Between tokens of a request"),
            bounds_s=_LATENCY_BUCKETS_S,
        )
        self._rate = _Rate(now_s)
        Gauge(
            f"{PREFIX}tokens_per_second",
            f"Tokens that reached the server, mean of the last {RATE_WINDOW_S:.0f} s",
            registry=self.registry,
        ).set_function(self._rate.per_second)
        self._http = Counter(
            f"{PREFIX}http_responses", "Responses", ["route", "status"], registry=self.registry
        )
        self._slow_clients = self._labelled(
            "slow_clients", "Clients given up on", "stage", SLOW_STAGES
        )
        self._refused = self._labelled(
            "requests_refused", "Requests refused because too much waits", "reason", FULL_REASONS
        )
        self._queue_wait = self._histogram("queue_wait_seconds", "In the engine's queue")
        self._ttft = self._histogram("ttft_seconds", "Acceptance to first token")
        self._prefill = self._histogram(
            "prefill_duration_seconds", "End of the queue to first token, ended requests"
        )
        self._decode = self._histogram(
            "decode_duration_seconds", "First token to the end, ended requests"
        )
        self._total = self._histogram(
            "total_duration_seconds", "Acceptance to the end, ended requests"
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(PREFIX + name, text, registry=self.registry)

    def _labelled(
        self, name: str, text: str, label: str, values: Iterable[str]
    ) -> dict[str, Counter]:
        """A counter per value, there from the start so that a first event shows as an increase."""
        counter = Counter(PREFIX + name, text, [label], registry=self.registry)
        return {value: counter.labels(value) for value in values}

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(PREFIX + name, text, buckets=_LATENCY_BUCKETS_S, registry=self.registry)

    def request_started(self, n_prompt_tokens: int) -> None:
        """A request was accepted."""
        self._started.inc()
        self._prompt.inc(n_prompt_tokens)

    def queue_wait(self, seconds: float) -> None:
        """A request reached its first step."""
        self._queue_wait.observe(seconds)

    def first_token(self, ttft_s: float) -> None:
        """A request's first token came."""
        self._tokens.count()
        self._rate.count()
        self._ttft.observe(ttft_s)

    def next_token(self, gap_s: float) -> None:
        """Another token came."""
        self._tokens.count(gap_s)
        self._rate.count()

    def request_ended(
        self, state: str, *, total_s: float, prefill_s: float | None, decode_s: float | None
    ) -> None:
        """A request ended as `completed`, `failed` or `cancelled`; prefill_s and decode_s are None
        when it never got a token."""
        self._ended[state].inc()
        self._total.observe(total_s)
        if prefill_s is not None:
            self._prefill.observe(prefill_s)
        if decode_s is not None:
            self._decode.observe(decode_s)

    def response(self, route: str, status: int) -> None:
        """A response began."""
        self._http.labels(route, str(status)).inc()

    def refused(self, reason: str) -> None:
        """A request was refused because too many `requests` or `tokens` were there."""
        self._refused[reason].inc()

    def slow_client(self, stage: str) -> None:
        """A client was given up on: too slow with its `headers`, its `body`, or as a `reader`."""
        self._slow_clients[stage].inc()

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


class _Rate:
    """Events per second over the last RATE_WINDOW_S. The rate of an engine's last step would
    stand for ever once the engine is idle."""

    _SLICE_S: Final = 0.25

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._slices: deque[list[float]] = deque()  # [begin, events], oldest first
        self._slice_end_s = -math.inf

    def count(self) -> None:
        """One event, now."""
        now_s = self._now_s()
        if now_s >= self._slice_end_s:
            self._forget(now_s)
            self._slice_end_s = now_s + self._SLICE_S
            self._slices.append([now_s, 0])
        self._slices[-1][1] += 1

    def per_second(self) -> float:
        """The rate now."""
        self._forget(self._now_s())
        return sum(n_events for _, n_events in self._slices) / RATE_WINDOW_S

    def _forget(self, now_s: float) -> None:
        while self._slices and now_s - self._slices[0][0] > RATE_WINDOW_S:
            self._slices.popleft()
        if not self._slices:
            self._slice_end_s = -math.inf


class _EngineCollector:
    """The engine's numbers, as they are when somebody asks."""

    def __init__(self, read: Callable[[], EngineReading]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: without this the registry would ask the engine when it registers us."""
        return ()

    def collect(self) -> Iterable[Metric]:
        reading = self._read()
        for name, text in ENGINE_GAUGES.items():
            yield GaugeMetricFamily(PREFIX + name, text, reading.gauges[name])
        for name, text in ENGINE_COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, text, reading.counters[name])
        restarts = CounterMetricFamily(
            f"{PREFIX}engine_restarts", "Engines replaced", labels=["cause"]
        )
        for cause, count in reading.restarts.items():
            restarts.add_metric([cause], count)
        yield restarts
        states = GaugeMetricFamily(
            f"{PREFIX}engine_state", "1 for the state that the engine is in", labels=["state"]
        )
        for state, is_it in reading.states.items():
            states.add_metric([state], float(is_it))
        yield states
        yield from _retry_families(reading)
        if reading.info:
            yield InfoMetricFamily(f"{PREFIX}engine", "What really runs", dict(reading.info))


def _retry_families(reading: EngineReading) -> Iterable[Metric]:
    """The contract's retry metrics, labelled with the operation."""
    families = {
        name: CounterMetricFamily(PREFIX + name, text, labels=["operation"])
        for name, text in RETRY_COUNTERS.items()
    }
    histogram = HistogramMetricFamily(
        PREFIX + RETRY_HISTOGRAM, "Retries per retried device operation", labels=["operation"]
    )
    for count in reading.retries:
        numbers = (count.attempts, count.successes, count.failures)
        for family, value in zip(families.values(), numbers, strict=True):
            family.add_metric([count.operation], value)
        n_observed = count.successes + count.failures
        bounds = [str(float(bound)) for bound in reading.retry_bounds]
        buckets = [*zip(bounds, count.buckets, strict=True), ("+Inf", n_observed)]
        histogram.add_metric([count.operation], buckets, count.n_retries)
    return [*families.values(), histogram]
