"""Metrics: what each hook moves. That real traffic moves every series is shown over the server, in
tests/unit/server/test_operations.py."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rocmforge.observe.metrics import (
    ENGINE_COUNTERS,
    ENGINE_GAUGES,
    RATE_WINDOW_S,
    Metrics,
)
from rocmforge.wire.protocol import RETRY_BUCKETS, RetryCount
from tests.support.source_tree import ROOT


@dataclass
class Reading:
    gauges: dict = field(default_factory=lambda: dict.fromkeys(ENGINE_GAUGES, 1.0))
    counters: dict = field(default_factory=lambda: dict.fromkeys(ENGINE_COUNTERS, 2.0))
    restarts: dict = field(default_factory=lambda: {"killed": 3, "hung": 0})
    states: dict = field(default_factory=lambda: {"ready": True, "failed": False})
    retries: tuple = (RetryCount("launch", 5, 2, 1, (1, 3, 3, 3, 3), 6),)
    retry_bounds: tuple = RETRY_BUCKETS
    info: dict = field(default_factory=lambda: {"backend": "cpu"})


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics(clock):
    return Metrics(Reading, clock)


def samples(metrics):
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name.removeprefix("rocmforge_"), *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def moved(metrics, act):
    """The samples that `act` changes, and by how much; the buckets of histograms left out."""
    before = samples(metrics)
    act()
    after = samples(metrics)
    return {
        key: value - before.get(key, 0.0)
        for key, value in after.items()
        if value != before.get(key, 0.0) and not key[0].endswith("_bucket")
    }


def test_every_name_has_the_prefix_and_a_help_text(metrics):
    for family in metrics.registry.collect():
        assert family.name.startswith("rocmforge_")
        assert len(family.documentation) > 5


def test_a_request_from_start_to_end(metrics):
    assert moved(metrics, lambda: metrics.request_started(7)) == {
        ("requests_started_total",): 1,
        ("request_prompt_tokens_total",): 7,
    }
    assert moved(metrics, lambda: metrics.queue_wait(0.5)) == {
        ("queue_wait_seconds_count",): 1,
        ("queue_wait_seconds_sum",): 0.5,
    }
    assert moved(metrics, lambda: metrics.first_token(0.25)) == {
        ("tokens_generated_total",): 1,
        ("tokens_per_second",): pytest.approx(1 / RATE_WINDOW_S),
        ("ttft_seconds_count",): 1,
        ("ttft_seconds_sum",): 0.25,
    }
    assert moved(metrics, lambda: metrics.next_token(0.125)) == {
        ("tokens_generated_total",): 1,
        ("tokens_per_second",): pytest.approx(1 / RATE_WINDOW_S),
        ("inter_token_latency_seconds_count",): 1,
        ("inter_token_latency_seconds_sum",): 0.125,
    }


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_the_end_of_a_request(metrics, state):
    def end():
        metrics.request_ended(state, total_s=3.0, prefill_s=1.0, decode_s=2.0)

    assert moved(metrics, end) == {
        (f"requests_{state}_total",): 1,
        ("total_duration_seconds_count",): 1,
        ("total_duration_seconds_sum",): 3,
        ("prefill_duration_seconds_count",): 1,
        ("prefill_duration_seconds_sum",): 1,
        ("decode_duration_seconds_count",): 1,
        ("decode_duration_seconds_sum",): 2,
    }


def test_a_request_without_a_token_has_neither_prefill_nor_decode(metrics):
    def end():
        metrics.request_ended("failed", total_s=3.0, prefill_s=None, decode_s=None)

    assert {key[0] for key in moved(metrics, end)} == {
        "requests_failed_total",
        "total_duration_seconds_count",
        "total_duration_seconds_sum",
    }


def test_responses_by_route_and_status(metrics):
    metrics.response("/generate", 200)
    metrics.response("/generate", 200)
    metrics.response("/generate", 503)
    found = samples(metrics)
    assert found["http_responses_total", "/generate", "200"] == 2
    assert found["http_responses_total", "/generate", "503"] == 1


def test_the_token_rate_is_that_of_the_last_seconds(metrics, clock):
    for _ in range(50):
        clock.now_s += RATE_WINDOW_S / 50
        metrics.next_token(0.1)
    assert samples(metrics)["tokens_per_second",] == pytest.approx(50 / RATE_WINDOW_S)
    # A slice of a quarter second may count as a whole: at most 5 tokens a second for 0.25 s.
    clock.now_s += RATE_WINDOW_S / 2
    half = samples(metrics)["tokens_per_second",]
    assert half == pytest.approx(25 / RATE_WINDOW_S, abs=2 * 5 * 0.25 / RATE_WINDOW_S)
    clock.now_s += RATE_WINDOW_S
    assert samples(metrics)["tokens_per_second",] == 0


def test_what_the_engine_says_is_read_at_each_scrape(clock):
    reading = Reading()
    metrics = Metrics(lambda: reading, clock)
    found = samples(metrics)
    for name in ENGINE_GAUGES:
        assert found[name,] == 1
    for name in ENGINE_COUNTERS:
        assert found[f"{name}_total",] == 2
    assert found["engine_restarts_total", "killed"] == 3
    assert found["engine_restarts_total", "hung"] == 0
    assert found["engine_state", "ready"] == 1
    assert found["engine_state", "failed"] == 0
    assert found["engine_info", "cpu"] == 1
    reading.counters["engine_steps"] = 9.0
    assert samples(metrics)["engine_steps_total",] == 9


def test_retries_by_operation(metrics):
    found = samples(metrics)
    assert found["gpu_retry_attempts_total", "launch"] == 5
    assert found["gpu_retry_success_total", "launch"] == 2
    assert found["gpu_retry_failed_total", "launch"] == 1
    assert found["gpu_retry_attempt_histogram_sum", "launch"] == 6
    assert found["gpu_retry_attempt_histogram_count", "launch"] == 3
    buckets = {k[1]: v for k, v in found.items() if k[0] == "gpu_retry_attempt_histogram_bucket"}
    assert buckets == {"1.0": 1, "2.0": 3, "4.0": 3, "8.0": 3, "16.0": 3, "+Inf": 3}


def test_nothing_is_said_to_run_before_anything_does(clock):
    assert not any(key[0] == "engine_info" for key in samples(Metrics(lambda: Reading(info={}))))


def test_the_engine_is_not_asked_before_the_first_scrape():
    def read():
        raise AssertionError("asked while the metrics were declared")

    Metrics(read)


def test_two_servers_in_one_process_do_not_share_counts(clock):
    one, other = Metrics(Reading, clock), Metrics(Reading, clock)
    one.request_started(1)
    assert samples(other)["requests_started_total",] == 0


def test_the_page_lists_every_metric_and_no_other(metrics):
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    listed = {row[1].strip().strip("`").split("{")[0]: row[2].strip() for row in rows}
    declared = {}
    metrics.response("/", 200)
    for family in metrics.registry.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        declared[family.name.removeprefix("rocmforge_") + suffix] = kind
    assert listed == declared
