"""/health, /ready, /props, /metrics of a healthy server."""

from __future__ import annotations

import os

from prometheus_client.parser import text_string_to_metric_families

from rocmforge.backends.select import available_isas

WORK = {"prompt": "Once upon a time " * 8, "max_tokens": 20, "temperature": 0}
# Series that only move when something goes wrong, or by what this server is not asked to do.
MOVED_ELSEWHERE = {
    "rocmforge_requests_failed",
    "rocmforge_requests_cancelled",
    "rocmforge_preemptions",
    "rocmforge_requests_resumed",
    "rocmforge_engine_restarts",
    "rocmforge_faults_injected",
    "rocmforge_memory_recoveries",
    "rocmforge_gpu_retry_attempts",
    "rocmforge_gpu_retry_success",
    "rocmforge_gpu_retry_failed",
    "rocmforge_gpu_retry_attempt_histogram",
    "rocmforge_slow_clients",
    "rocmforge_requests_refused",
}


def series(server) -> dict[str, float]:
    families = text_string_to_metric_families(server.get("/metrics").text)
    return {f.name: sum(s.value for s in f.samples) for f in families}


def test_health(server):
    answer = server.get("/health")
    body = answer.json()
    assert answer.status_code == 200
    assert body["status"] == "healthy"
    assert body["checks"]["engine"]["running"]
    assert body["checks"]["engine"]["model_loaded"]
    assert body["checks"]["gpu"]["available"] is False
    assert body["checks"]["gpu"]["error"]
    assert body["checks"]["requests"].keys() == {"active", "queued"}
    pages = body["checks"]["cache"]["pages"]
    assert pages["used"] + pages["free"] == pages["total"] > 0
    assert server.get("/ready").json() == {"ready": True}


def test_props(server):
    props = server.props()
    engine, facts = props["engine"], props["engine"]["facts"]
    assert os.path.exists(f"/proc/{engine['pid']}")
    assert engine["pid"] != server.process.pid
    assert facts["backend"] == "cpu"
    assert facts["isa"] in available_isas()
    assert facts["kv_type"] == "f16"
    assert facts["weight_types"]["Q8_0"] > 0
    assert facts["deterministic"] is True
    assert props["model"]["architecture"] == "llama"
    assert props["model"]["has_chat_template"] is True
    assert 3_000_000 < props["model"]["n_parameters"] < 4_000_000
    assert props["limits"]["max_batch_size"] == 32


def test_every_series_is_really_updated(server):
    before = series(server)
    for _ in range(2):
        server.post("/generate", WORK)
    after = series(server)
    counters = {name for name in after if not is_gauge(name)} - MOVED_ELSEWHERE
    still = {name for name in counters if after[name] <= before.get(name, 0)}
    assert not still
    assert after["rocmforge_tokens_generated"] - before["rocmforge_tokens_generated"] == 40
    assert after["rocmforge_cache_pages_total"] > 0
    assert after["rocmforge_cache_pages_cached"] > 0
    assert after["rocmforge_tokens_per_second"] > 0
    assert after["rocmforge_engine_up"] == 1
    assert after["rocmforge_last_step_seconds"] > 0


def is_gauge(name: str) -> bool:
    gauges = ("active", "queue_length", "live", "cache_pages", "last_step", "_up", "percent")
    return any(part in name for part in gauges) or name in (
        "rocmforge_tokens_per_second",
        "rocmforge_engine_info",
        "rocmforge_engine_state",
    )


def test_the_contract_names_of_metrics(server):
    names = set(series(server))
    for name in (
        *("requests_started", "requests_completed", "requests_failed", "requests_cancelled"),
        *("tokens_generated", "queue_length", "active_requests", "tokens_per_second"),
        *("prefill_duration_seconds", "decode_duration_seconds", "total_duration_seconds"),
        *("gpu_retry_attempts", "gpu_retry_success", "gpu_retry_failed"),
        "gpu_retry_attempt_histogram",
        *("ttft_seconds", "inter_token_latency_seconds", "engine_restarts", "requests_resumed"),
    ):
        assert f"rocmforge_{name}" in names
