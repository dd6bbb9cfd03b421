"""All metrics, declared in one place; the prefix is `rocmforge_`.

What the server process sees itself (requests, latencies) is counted here; what the engine counts is
read from its status at each scrape, summed over restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

PREFIX: Final = "rocmforge_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# From a token of a small model (1 ms) to a prompt of a large one (minutes).
_LATENCY_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip


class EngineReading(Protocol):
    """What the engine's side looks like at a scrape."""

    @property
    def gauges(self) -> dict[str, float]: ...
    @property
    def counters(self) -> dict[str, float]: ...
    @property
    def restarts(self) -> dict[str, int]: ...
    @property
    def info(self) -> dict[str, str]: ...


class Metrics:
    """One registry. `read_engine` is asked at every scrape."""

    def __init__(self, read_engine: Callable[[], EngineReading]) -> None:
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
        self._tokens = self._counter("tokens_generated", "Tokens that reached the server")
        self._http = Counter(
            f"{PREFIX}http_responses", "Responses", ["route", "status"], registry=self.registry
        )
        self._queue_wait = self._histogram("queue_wait_seconds", "Waiting for the first step")
        self._ttft = self._histogram("ttft_seconds", "Acceptance to first token")
        self._gap = self._histogram("inter_token_latency_seconds", "Between tokens of a request")
        self._prefill = self._histogram(
            "prefill_duration_seconds", "Acceptance to first token, ended requests"
        )
        self._decode = self._histogram("decode_duration_seconds", "First token to the end")
        self._total = self._histogram("total_duration_seconds", "Acceptance to the end")

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(PREFIX + name, text, registry=self.registry)

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
        self._tokens.inc()
        self._ttft.observe(ttft_s)

    def next_token(self, gap_s: float) -> None:
        """Another token came."""
        self._tokens.inc()
        self._gap.observe(gap_s)

    def request_ended(
        self, state: str, *, total_s: float, prefill_s: float, decode_s: float
    ) -> None:
        """A request ended as `completed`, `failed` or `cancelled`."""
        self._ended[state].inc()
        self._prefill.observe(prefill_s)
        self._decode.observe(decode_s)
        self._total.observe(total_s)

    def response(self, route: str, status: int) -> None:
        """A response began."""
        self._http.labels(route, str(status)).inc()

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


class _EngineCollector:
    """The engine's numbers, as they are when somebody asks."""

    def __init__(self, read: Callable[[], EngineReading]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        reading = self._read()
        for name, value in reading.gauges.items():
            yield GaugeMetricFamily(PREFIX + name, name.replace("_", " "), value)
        for name, value in reading.counters.items():
            yield CounterMetricFamily(PREFIX + name, name.replace("_", " "), value)
        restarts = CounterMetricFamily(
            f"{PREFIX}engine_restarts", "Engines replaced", labels=["cause"]
        )
        for cause, count in reading.restarts.items():
            restarts.add_metric([cause], count)
        yield restarts
        yield InfoMetricFamily(f"{PREFIX}engine", "What really runs", reading.info)
