"""/health, /ready, /props and /metrics over engines that do what a script says."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import contextmanager

import pytest

from rocmforge.supervisor.crash_report import CrashCause
from rocmforge.supervisor.status import EngineState
from tests.support.gguf_files import write_tiny_model
from tests.support.scripted_server import scripted_server

LONG = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True}


async def until(holds, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not await holds():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.02)


async def until_state(server, state: EngineState) -> None:
    async def holds():
        return server.state.client.status.state is state

    await until(holds)


@contextmanager
def stopped(pid: int):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def reason(server) -> str:
    answer = await server.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    return answer.json()["reason"]


async def test_a_ready_engine(tmp_path):
    async with scripted_server(tmp_path) as server:
        status, body = await server.health()
        assert (status, body["status"], body["reason"]) == (200, "healthy", None)
        engine = body["checks"]["engine"]
        assert (engine["running"], engine["model_loaded"]) == (True, True)
        assert body["checks"]["gpu"]["available"] is False
        assert body["checks"]["gpu"]["error"]
        pages = body["checks"]["cache"]["pages"]
        assert pages == {"used": 0, "total": 1, "free": 1}
        assert (await server.get("/ready")).json() == {"ready": True}
        assert await server.sample("engine_up") == 1
        assert await server.sample("engine_state", state="ready") == 1


async def test_an_engine_that_loads(tmp_path):
    async with scripted_server(tmp_path, script={"load_s": 3.0}, ready=False) as server:
        await until_state(server, EngineState.loading)
        status, body = await server.health()
        assert (status, body["status"]) == (503, "unhealthy")
        assert body["checks"]["engine"]["model_loaded"] is False
        assert body["checks"]["cache"]["pages"]["total"] == 0
        assert "loaded: " in await reason(server)
        assert "%" in body["reason"]
        refused = await server.post("/generate", {"prompt": "a"})
        assert refused.status_code == 503
        assert await server.sample("engine_up") == 0
        assert not any(name == "rocmforge_engine_info" for name, _ in await server.samples())
        await server.state.client.wait_ready(20)
        assert (await server.health())[0] == 200


async def test_an_engine_that_is_stopped_long_before_it_counts_as_hung(tmp_path):
    async with scripted_server(tmp_path, hang_timeout_s=60.0) as server:
        pid = server.state.client.status.pid
        start_s = time.monotonic()
        with stopped(pid):

            async def is_unhealthy():
                return (await server.health())[0] == 503

            await until(is_unhealthy)
            # A probe once a second would notice before its third failure.
            assert time.monotonic() - start_s < 8
            _, body = await server.health()
            assert body["status"] == "unhealthy"
            assert body["checks"]["engine"]["running"] is False
            assert "sign of life" in await reason(server)
            assert await server.sample("engine_up") == 0
            assert server.state.client.status.is_ready, "the supervisor still waits"

        async def is_healthy():
            return (await server.health())[0] == 200

        await until(is_healthy)
        assert server.state.client.status.pid == pid
        assert await server.sample("engine_up") == 1


async def test_a_stopped_engine_is_replaced_and_health_says_so_all_the_way(tmp_path):
    pause = {"restart_delay_s": 1.0, "restart_max_delay_s": 1.0}
    async with scripted_server(tmp_path, hang_timeout_s=0.3, **pause) as server:
        pid = server.state.client.status.pid
        os.kill(pid, signal.SIGSTOP)
        await until_state(server, EngineState.recovering)
        status, body = await server.health()
        assert (status, body["status"]) == (200, "degraded")
        assert body["checks"]["engine"]["running"] is False
        await server.state.client.wait_ready(20)
        assert (await server.health())[1]["status"] == "healthy"
        assert server.state.client.status.pid != pid
        assert await server.sample("engine_restarts_total", cause="hung") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_an_engine_that_is_killed(tmp_path, number):
    pause = {"restart_delay_s": 1.0, "restart_max_delay_s": 1.0}
    async with scripted_server(tmp_path, {}, **pause) as server:
        asked = asyncio.create_task(server.post("/generate", LONG))

        async def is_active():
            return (await server.health())[1]["checks"]["requests"]["active"] == 1

        await until(is_active)
        os.kill(server.state.client.status.pid, number)
        await until_state(server, EngineState.recovering)
        status, body = await server.health()
        assert (status, body["status"]) == (200, "degraded")
        checks = body["checks"]
        assert (checks["engine"]["running"], checks["engine"]["model_loaded"]) == (False, False)
        # Nothing is worked on, and what was accepted waits.
        assert checks["requests"] == {"active": 0, "queued": 1}
        assert checks["cache"]["pages"]["total"] == 0
        assert "recovering" in await reason(server)
        assert await server.sample("queue_length") == 1
        assert await server.sample("engine_up") == 0
        await server.state.client.wait_ready(20)
        assert (await server.health())[1]["status"] == "healthy"
        await until(is_active)
        assert await server.sample("requests_resumed_total") == 1
        engine = (await server.get("/props")).json()["engine"]
        assert engine["restarts_by_cause"] == {"killed": 1}
        assert engine["crashes"][-1]["signal_name"] == number.name
        assert engine["pid"] == server.state.client.status.pid
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def test_an_open_circuit(tmp_path):
    async with scripted_server(
        tmp_path, {"start": "sigkill"}, ready=False, max_restarts=1, circuit_open_s=60.0
    ) as server:
        await until_state(server, EngineState.circuit_open)
        status, body = await server.health()
        assert (status, body["status"]) == (503, "unhealthy")
        assert "next attempt in" in await reason(server)
        assert "SIGKILL" in await reason(server)
        assert await server.sample("engine_state", state="circuit_open") == 1


async def test_an_engine_that_dies_before_it_was_ever_ready_is_no_degraded_one(tmp_path):
    pause = {"restart_delay_s": 30.0, "restart_max_delay_s": 30.0}
    async with scripted_server(tmp_path, {"start": "exit"}, ready=False, **pause) as server:
        await until_state(server, EngineState.recovering)
        # Requests are refused, not queued: a client is told so.
        assert (await server.post("/generate", {"prompt": "a"})).status_code == 503
        assert (await server.health())[0] == 503
        assert "exit code 3" in await reason(server)


async def test_a_model_that_can_never_be_loaded(tmp_path):
    async with scripted_server(tmp_path, {"start": "fail:InvalidModelFile"}, ready=False) as server:
        await until_state(server, EngineState.failed)
        status, body = await server.health()
        assert (status, body["status"]) == (503, "unhealthy")
        assert "the fake model is no good" in await reason(server)
        props = (await server.get("/props")).json()
        assert "the fake model is no good" in props["engine"]["last_error"]
        assert props["engine"]["facts"] is None


async def test_a_server_that_stops_is_not_ready_but_finishes_its_work(tmp_path):
    async with scripted_server(tmp_path) as server:
        server.state.is_draining = True
        status, body = await server.health()
        assert (status, body["status"]) == (200, "degraded")
        assert "stopping" in await reason(server)


async def test_a_model_without_a_tokenizer_is_not_ready_though_its_engine_is(tmp_path):
    path = tmp_path / "no_tokenizer.gguf"
    write_tiny_model(path, with_tokenizer=False)
    async with scripted_server(tmp_path, model=path) as server:
        assert server.state.client.status.is_ready
        status, body = await server.health()
        assert (status, body["status"]) == (503, "unhealthy")
        assert "tokenizer" in await reason(server)
        assert (await server.post("/generate", {"prompt": "a"})).status_code >= 400


async def test_props(tmp_path):
    async with scripted_server(tmp_path) as server:
        props = (await server.get("/props")).json()
    engine = props["engine"]
    assert engine["state"] == "ready"
    assert engine["restarts"] == 0
    assert engine["crashes"] == []
    facts = engine["facts"]
    for name in (
        *("backend", "device", "isa", "n_threads", "activation_dtype", "weight_types"),
        *("decoded_types", "kv_type", "deterministic", "n_ctx", "n_vocab", "architecture"),
    ):
        assert name in facts
    model = props["model"]
    assert model["file"].endswith(".gguf")
    assert model["n_parameters"] > 0
    assert isinstance(model["has_chat_template"], bool)
    assert props["limits"].keys() == {
        "max_batch_size",
        "max_step_tokens",
        "max_queue",
        "max_live_requests",
        "max_body_bytes",
    }
    assert props["version"]


STATS = {
    "n_waiting": 3,
    "blocks_used": 4,
    "blocks_cached": 5,
    "prompt_tokens_total": 6,
    "prefix_queries_total": 7,
    "prefix_hits_total": 8,
    "prefix_hit_tokens_total": 9,
    "preemptions_total": 10,
    "steps_total": 11,
    "last_step_ms": 12.0,
    "prefill_s_total": 13.0,
    "decode_s_total": 14.0,
    "device_calls_total": 15,
    "faults_injected_total": 16,
    "memory_recoveries_total": 17,
    "retries": [
        (operation, 6, 1, 1, (1, 1, 1, 2, 2), 6)
        for operation in ("allocate_buffer", "copy_from_device", "launch")
    ],
}


async def test_traffic_moves_every_series(tmp_path):
    """None is dead: each differs between a server that starts, one at work and one that rests."""
    dies = {"stats": STATS, "after": 5, "how": "sigkill"}
    async with scripted_server(
        tmp_path, dies, {"stats": STATS}, ready=False, script={"load_s": 1.0}
    ) as server:
        starting = await server.samples()
        await server.state.client.wait_ready(20)
        answer = await server.post("/generate", {"prompt": "Hello", "max_tokens": 8})
        assert answer.json()["finish_reason"] == "length"
        failed = await server.post("/v1/completions", {"prompt": [404], "max_tokens": 4})
        assert failed.status_code == 500
        async with server.stream("/generate/stream", LONG) as stream:
            await stream.next()
            working = await server.samples()
        resting = await server.samples()
    moved = {
        name
        for (name, labels), value in (working | resting).items()
        if {starting.get((name, labels)), working.get((name, labels)), value} != {value}
    }
    # tests/http/test_slow_clients.py and test_overload.py move these.
    elsewhere = {"rocmforge_slow_clients_total", "rocmforge_requests_refused_total"}
    assert {name for name, _ in resting} - elsewhere <= moved
    assert working["rocmforge_live_requests", ()] == 1
    for name, value in {
        "requests_started_total": 3,
        "requests_completed_total": 1,
        "requests_failed_total": 1,
        "requests_cancelled_total": 1,
        "requests_resumed_total": 1,
        "live_requests": 0,
        "queue_length": 3,
        "cache_pages_used": 4,
        "cache_pages_cached": 5,
        # Two engines have said so.
        "preemptions_total": 20,
        "last_step_seconds": 0.012,
        "gpu_calls_total": 30,
    }.items():
        assert resting[f"rocmforge_{name}", ()] == value, name
    launch = (("operation", "launch"),)
    assert resting["rocmforge_gpu_retry_attempts_total", launch] == 12
    assert resting["rocmforge_gpu_retry_attempt_histogram_sum", launch] == 12
    restarts = {labels: n for (name, labels), n in resting.items() if "restarts_total" in name}
    assert restarts == {(("cause", str(cause)),): cause == "killed" for cause in CrashCause}
    served = (("route", "/generate"), ("status", "200"))
    assert resting["rocmforge_http_responses_total", served] == 1
    assert resting["rocmforge_total_duration_seconds_count", ()] == 3
    # The failed one never got a token.
    assert resting["rocmforge_prefill_duration_seconds_count", ()] == 2
    assert resting["rocmforge_ttft_seconds_count", ()] == 2
