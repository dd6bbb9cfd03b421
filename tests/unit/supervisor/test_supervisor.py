"""Every way in which an engine can end, and what becomes of it and of its requests."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
import uvloop

from rocmforge import errors
from rocmforge.config import EngineConfig, SupervisorConfig
from rocmforge.errors import (
    EngineNotInitialized,
    EngineRecovering,
    GenerationFailed,
    HipError,
    HipErrorKind,
    InvalidModelFile,
    ModelLoading,
)
from rocmforge.request import RequestState
from rocmforge.supervisor import supervisor
from rocmforge.supervisor.client import EngineClient, EngineState, Recovering
from rocmforge.supervisor.crash_report import CrashCause
from tests.support.fake_engine import ENDINGS, undisturbed
from tests.support.scripted_engine import read_all, request, scripted

CAUSES = {
    "sigkill": CrashCause.killed,
    "abort": CrashCause.killed,
    "exit": CrashCause.exited,
    "truncated": CrashCause.exited,
    "hang": CrashCause.hung,
    "close": CrashCause.disconnected,
    "garbage": CrashCause.babbling,
    "zeros": CrashCause.babbling,
    "oversized": CrashCause.babbling,
    "wrong_type": CrashCause.babbling,
    "repeat": CrashCause.babbling,
    "skip": CrashCause.babbling,
    "foreign": CrashCause.babbling,
}


@pytest.mark.parametrize("how", ENDINGS)
async def test_whatever_ends_the_engine_the_stream_goes_on(tmp_path, how):
    asked = request(n=2)
    async with scripted(tmp_path, {"after": 7, "how": how}, {}) as client:
        first_pid = client.status.pid
        assert await read_all(client.submit(asked)) == undisturbed(asked)
        status = client.status
    assert status.restarts_by_cause == {CAUSES[how]: 1}
    assert status.requests_resumed_total == 1
    assert status.state is EngineState.ready
    assert status.pid != first_pid
    (report,) = status.crashes
    assert (report.cause, report.pid, report.in_flight) == (CAUSES[how], first_pid, ("r",))
    assert report.n_tokens == 7
    assert report.phase == "serving"
    if how == "sigkill":
        assert (report.exit_code, report.signal_name) == (None, "SIGKILL")
    if how == "exit":
        assert (report.exit_code, report.signal_name) == (3, None)


@pytest.mark.parametrize("how", ["exit", "sigkill", "garbage"])
async def test_an_engine_that_dies_at_start_is_started_again(tmp_path, how):
    async with scripted(tmp_path, {"start": how}, {"start": how}, {}) as client:
        assert client.status.restarts_total == 2
        assert await read_all(client.submit(request())) == undisturbed(request())


async def test_a_load_that_hangs_has_a_limit_of_its_own(tmp_path):
    async with scripted(tmp_path, {"start": "hang"}, {}, load_timeout_s=0.4) as client:
        (report,) = client.status.crashes
    assert report.cause is CrashCause.hung
    assert report.phase == "loading"


async def test_progress_of_a_load_is_a_sign_of_life(tmp_path):
    script = {"load_s": 0.9}
    async with scripted(tmp_path, {}, script=script, load_timeout_s=0.5) as client:
        assert client.status.restarts_total == 0


async def test_an_idle_engine_is_not_a_hung_one(tmp_path):
    async with scripted(tmp_path, {}, hang_timeout_s=0.3) as client:
        await asyncio.sleep(1.0)
        assert client.status.restarts_total == 0
        assert client.status.beat_age_s < 0.3


async def test_a_stopped_engine_hangs_even_when_idle(tmp_path):
    async with scripted(tmp_path, {}) as client:
        os.kill(client.status.pid, signal.SIGSTOP)
        await wait_for(lambda: client.status.restarts_total == 1)
        await client.wait_ready(10.0)
        assert await read_all(client.submit(request())) == undisturbed(request())


async def test_a_load_that_can_never_succeed_ends_in_failed(tmp_path):
    async with scripted(tmp_path, {"start": "fail:InvalidModelFile"}, ready=False) as client:
        with pytest.raises(InvalidModelFile, match="no good"):
            await client.wait_ready(10.0)
        assert client.status.state is EngineState.failed
        assert client.status.restarts_total == 0
        with pytest.raises(EngineNotInitialized, match="no good"):
            client.submit(request())


@pytest.mark.parametrize(
    "name", ["BackendInitializationFailed", "GpuDeviceNotFound", "CacheCapacityExceeded"]
)
async def test_a_machine_that_can_never_serve_the_model_ends_in_failed(tmp_path, name):
    async with scripted(tmp_path, {"start": f"fail:{name}"}, ready=False) as client:
        with pytest.raises(getattr(errors, name), match="no good"):
            await client.wait_ready(10.0)
        assert client.status.state is EngineState.failed
        assert client.status.restarts_total == 0


@pytest.mark.parametrize(
    ("kind", "hopeless"), [(HipErrorKind.DeviceNotFound, True), (HipErrorKind.DeviceLost, False)]
)
def test_a_hip_error_says_itself_whether_it_can_pass(kind, hopeless):
    assert supervisor._cannot_pass(HipError("no good", kind=kind)) is hopeless


async def test_a_later_engine_gets_the_sizes_of_the_first(tmp_path):
    lives = [{"kv_bytes": 8192, "after": 5, "how": "sigkill"}, {"kv_bytes": 1024}]
    async with scripted(tmp_path, *lives) as client:
        before = client.status.facts
        assert await read_all(client.submit(request())) == undisturbed(request())
        after = client.status.facts
    assert before.kv_bytes == after.kv_bytes == 8192
    assert (before.n_ctx, before.pid != after.pid) == (after.n_ctx, True)


async def test_sizes_of_a_mad_engine_are_nobody_s(tmp_path):
    lives = [{"kv_bytes": -1, "after": 5, "how": "sigkill"}, {"kv_bytes": 1024}]
    async with scripted(tmp_path, *lives) as client:
        assert await read_all(client.submit(request())) == undisturbed(request())
        assert client.status.facts.kv_bytes == 1024


async def test_a_failure_that_may_pass_is_tried_again(tmp_path):
    lives = [{"start": "fail:GpuMemoryAllocationFailed"}, {}]
    async with scripted(tmp_path, *lives) as client:
        assert client.status.restarts_by_cause == {CrashCause.failed: 1}


async def test_a_model_file_that_goes_bad_while_serving_is_not_the_end(tmp_path):
    lives = [{"after": 5, "how": "sigkill"}, {"start": "fail:InvalidModelFile"}, {}]
    async with scripted(tmp_path, *lives) as client:
        assert await read_all(client.submit(request())) == undisturbed(request())
        assert client.status.restarts_total == 2


async def test_the_circuit_opens_after_restarts_without_progress_and_closes_again(tmp_path):
    lives = [{"after": 5, "how": "sigkill"}, *[{"start": "exit"}] * 3, {}]
    async with scripted(tmp_path, *lives, max_restarts=3, circuit_open_s=1.0) as client:
        handle = client.submit(request())
        with pytest.raises(EngineRecovering, match="restarted 3 times in a row"):
            await read_all(handle)
        assert handle.state is RequestState.Failed
        assert client.status.state is EngineState.circuit_open
        assert 0.0 < client.status.circuit_closes_in_s <= 1.0
        with pytest.raises(EngineRecovering, match="next attempt"):
            client.submit(request("early"))
        await wait_for(lambda: client.status.state is not EngineState.circuit_open)
        late = client.submit(request("late"))
        assert await read_all(late) == undisturbed(request("late"))


async def test_progress_resets_the_count(tmp_path):
    lives = [{"after": 3, "how": "exit"}] * 9
    asked = request(max_tokens=30)
    async with scripted(tmp_path, *lives, {}, max_restarts=1) as client:
        assert await read_all(client.submit(asked)) == undisturbed(asked)
        assert client.status.restarts_total == 9


async def test_a_request_that_kills_every_engine_does_so_a_limited_number_of_times(tmp_path):
    good, poison = request("good", max_tokens=2000), request("poison", prompt=(666,))
    script = {"step_s": 0.01}
    async with scripted(tmp_path, {}, script=script, max_restarts=2) as client:
        reading = asyncio.create_task(read_all(client.submit(good)))
        await asyncio.sleep(0.1)
        victim = client.submit(poison)
        with pytest.raises((GenerationFailed, EngineRecovering)):
            await read_all(victim)
        assert client.status.restarts_total <= 4
        reading.cancel()


async def test_a_poison_request_fails_alone_when_others_make_progress(tmp_path):
    """The fake engine serves in order of arrival, so the good one gets a token in every life."""
    good, poison = request("good", max_tokens=12), request("poison", prompt=(666,))
    life = {"after": 1, "how": "sigkill"}
    async with scripted(tmp_path, life, max_restarts=2) as client:
        good_handle, poison_handle = client.submit(good), client.submit(poison)
        reading = asyncio.create_task(read_all(good_handle))
        with pytest.raises(GenerationFailed, match="3 times in a row"):
            await read_all(poison_handle)
        assert await reading == undisturbed(good)


async def test_restarts_are_announced_once_each_to_every_live_request(tmp_path):
    lives = [{"after": 4, "how": "sigkill"}, {"after": 4, "how": "exit"}, {}]
    async with scripted(tmp_path, *lives) as client:
        markers = [e async for e in client.submit(request()) if isinstance(e, Recovering)]
    assert markers == [Recovering(1), Recovering(2)]


async def test_the_state_goes_from_starting_over_loading_to_ready_and_stopped(tmp_path):
    async with scripted(tmp_path, {}, ready=False, script={"load_s": 0.3}) as client:
        assert client.status.state is EngineState.starting
        with pytest.raises(ModelLoading, match="0 %"):
            client.submit(request())
        await wait_for(lambda: client.status.load_percent == 50.0)
        assert client.status.state is EngineState.loading
        with pytest.raises(ModelLoading, match=r"50 % \(read\)"):
            client.submit(request())
        facts = await client.wait_ready(10.0)
        assert client.status.is_ready
        assert client.status.facts == facts
        assert client.status.pid == facts.pid
    assert client.status.state is EngineState.stopped
    with pytest.raises(EngineNotInitialized):
        client.submit(request())


async def test_counters_never_go_back_over_restarts(tmp_path):
    asked = request(max_tokens=20)
    async with scripted(tmp_path, {"after": 7, "how": "sigkill"}, {}) as client:
        await read_all(client.submit(asked))
        assert client.status.stats.generated_tokens_total == 20


async def test_a_program_that_cannot_be_started_opens_the_circuit():
    config = SupervisorConfig(restart_delay_s=0.01, restart_max_delay_s=0.02, max_restarts=2)
    client = EngineClient(EngineConfig(), config, command=["/nonexistent/engine"])
    await client.start()
    await wait_for(lambda: client.status.state is EngineState.circuit_open)
    assert client.status.restarts_by_cause == {CrashCause.not_started: 3}
    assert "cannot be started" in client.status.last_error.message
    await client.close()


async def test_starting_an_engine_does_not_hold_the_event_loop(tmp_path):
    worst = 0.0

    async def clock() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - before)

    ticking = asyncio.create_task(clock())
    await asyncio.sleep(0.05)
    async with scripted(tmp_path, {"after": 50, "how": "sigkill"}, {}) as client:
        await asyncio.gather(*(read_all(client.submit(request(f"{i}"))) for i in range(20)))
    ticking.cancel()
    # 10 ms is the design's limit; a loaded machine may take the processor away for longer.
    assert worst < 0.1


async def wait_for(condition, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def test_it_works_under_uvloop_as_well(tmp_path):
    """uvicorn runs the server in uvloop where that is installed."""

    async def scenario() -> None:
        asked = request(n=2)
        async with scripted(tmp_path, {"after": 7, "how": "sigkill"}, {}) as client:
            assert await read_all(client.submit(asked)) == undisturbed(asked)
            assert client.status.restarts_by_cause == {CrashCause.killed: 1}
            pid = client.status.pid
        assert not Path(f"/proc/{pid}").exists()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
