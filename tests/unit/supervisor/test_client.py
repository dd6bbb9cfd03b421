"""Accepting, cancelling, draining, stopping: one end per request."""

from __future__ import annotations

import asyncio

import pytest

from rocmforge.errors import (
    EngineNotInitialized,
    InferenceFailed,
    InvalidRequest,
    QueueCapacityExceeded,
)
from rocmforge.request import RequestState
from rocmforge.supervisor.client import EngineState
from rocmforge.wire.protocol import RequestStarted, TokenOutput
from tests.support.fake_engine import undisturbed
from tests.support.scripted_engine import read_all, request, scripted
from tests.unit.supervisor.test_supervisor import wait_for

SLOW = {"step_s": 0.01}


async def test_many_requests_at_once_each_get_their_own_tokens(tmp_path):
    asked = [request(f"r{i}", n=1 + i % 3, seed=i) for i in range(20)]
    async with scripted(tmp_path, {}) as client:
        handles = [client.submit(r) for r in asked]
        assert await asyncio.gather(*map(read_all, handles)) == [undisturbed(r) for r in asked]
        assert all(handle.state is RequestState.Completed for handle in handles)
        assert client.status.n_live == 0


async def test_started_comes_once_though_the_engine_starts_twice(tmp_path):
    async with scripted(tmp_path, {"after": 4, "how": "exit"}, {}) as client:
        events = [event async for event in client.submit(request())]
    assert sum(isinstance(event, RequestStarted) for event in events) == 1
    assert isinstance(events[0], RequestStarted)


async def test_the_queue_is_bounded(tmp_path):
    async with scripted(tmp_path, {}, max_live=2, script=SLOW) as client:
        handles = [client.submit(request(f"{i}", max_tokens=500)) for i in range(2)]
        with pytest.raises(QueueCapacityExceeded, match="2 requests"):
            client.submit(request("third"))
        handles[0].cancel()
        client.submit(request("third"))


async def test_a_live_id_cannot_be_used_again(tmp_path):
    async with scripted(tmp_path, {}, script=SLOW) as client:
        client.submit(request("same", max_tokens=500))
        with pytest.raises(InvalidRequest, match="unique"):
            client.submit(request("same"))


async def test_a_missing_seed_is_drawn_and_kept_over_restarts(tmp_path):
    lives = [{"after": 5, "how": "sigkill"}, {"after": 5, "how": "sigkill"}, {}]
    async with scripted(tmp_path, *lives) as client:
        handle = client.submit(request(seed=None))
        seed = client._journal.get("r").request.params.seed
        assert await read_all(handle) == undisturbed(request(seed=seed))
        other = client.submit(request("other", seed=None))
        assert client._journal.get("other").request.params.seed != seed
        other.cancel()


async def test_cancel_ends_the_request_once_and_late_tokens_are_ignored(tmp_path):
    async with scripted(tmp_path, {"cancel_lag": 5}, script=SLOW) as client:
        handle = client.submit(request("a", max_tokens=500))
        other = client.submit(request("b", max_tokens=40))
        async for event in handle:
            if isinstance(event, TokenOutput) and event.index == 3:
                break
        handle.cancel()
        assert handle.state is RequestState.Cancelled
        assert [event async for event in handle] == []
        handle.cancel()
        assert await read_all(other) == undisturbed(request("b", max_tokens=40))
        assert client.status.restarts_total == 0
        await wait_for(lambda: client.status.stats.n_running == 0)


async def test_cancelling_a_choice_leaves_the_others(tmp_path):
    asked = request(n=3, max_tokens=30)
    async with scripted(tmp_path, {"after": 40, "how": "sigkill"}, {}, script=SLOW) as client:
        handle = client.submit(asked)
        got: dict[int, list[int]] = {0: [], 1: [], 2: []}
        async for event in handle:
            if isinstance(event, TokenOutput):
                got[event.choice].append(event.token_id)
                if (event.choice, event.index) == (1, 4):
                    handle.cancel(choice=1)
        assert client.status.restarts_total == 1
    expected = undisturbed(asked)
    assert got == {0: expected[0], 1: expected[1][:5], 2: expected[2]}
    assert handle.state is RequestState.Completed


async def test_cancelling_the_last_choice_completes_the_request(tmp_path):
    async with scripted(tmp_path, {}, script=SLOW) as client:
        handle = client.submit(request(n=2, max_tokens=500))
        handle.cancel(choice=0)
        handle.cancel(choice=0)
        assert not handle.is_done
        handle.cancel(choice=1)
        assert handle.state is RequestState.Completed
        assert [event async for event in handle] == []
        assert client.status.n_live == 0


async def test_a_request_cancelled_while_there_is_no_engine_is_not_resumed(tmp_path):
    lives = [{"after": 5, "how": "sigkill"}, {"start": "hang"}, {}]
    async with scripted(tmp_path, *lives, load_timeout_s=0.5) as client:
        gone, kept = client.submit(request("gone")), client.submit(request("kept"))
        await wait_for(lambda: client.status.state is EngineState.recovering)
        gone.cancel()
        during = client.submit(request("during"))
        assert await read_all(kept) == undisturbed(request("kept"))
        assert await read_all(during) == undisturbed(request("during"))
        assert gone.state is RequestState.Cancelled
        assert client.status.requests_resumed_total == 1


async def test_one_request_that_fails_is_no_business_of_the_others(tmp_path):
    async with scripted(tmp_path, {}) as client:
        bad, good = client.submit(request("bad", prompt=(404,))), client.submit(request("good"))
        with pytest.raises(InferenceFailed, match="not a number"):
            await read_all(bad)
        assert await read_all(good) == undisturbed(request("good"))
        assert client.status.restarts_total == 0


async def test_draining_waits_for_live_requests_and_refuses_new_ones(tmp_path):
    async with scripted(tmp_path, {}, script=SLOW) as client:
        reading = asyncio.create_task(read_all(client.submit(request(max_tokens=30))))
        assert not await client.drain(0.05)
        with pytest.raises(EngineNotInitialized, match="stopping"):
            client.submit(request("late"))
        assert await client.drain(10.0)
        assert await reading == undisturbed(request(max_tokens=30))


async def test_closing_fails_what_is_still_live_and_leaves_no_process(tmp_path):
    async with scripted(tmp_path, {}, script=SLOW) as client:
        handle = client.submit(request(max_tokens=5000))
        await wait_for(lambda: client.status.stats.generated_tokens_total > 3)
        process = client._supervisor._life.process
        await client.close()
        assert process.returncode == 0
        with pytest.raises(EngineNotInitialized, match="stopping"):
            await read_all(handle)


@pytest.mark.parametrize("when_s", [0.0, 0.02, 0.1])
async def test_closing_while_the_engine_starts_leaves_no_process(tmp_path, when_s):
    async with scripted(tmp_path, {}, ready=False, script={"load_s": 5.0}) as client:
        await asyncio.sleep(when_s)
        life = client._supervisor._life
        await client.close()
        assert life is None or life.process.returncode is not None
    assert client.status.state is EngineState.stopped


async def test_waiting_for_a_client_that_is_closed_ends(tmp_path):
    async with scripted(tmp_path, {}, ready=False, script={"load_s": 5.0}) as client:
        waiting = asyncio.create_task(client.wait_ready())
        with pytest.raises(TimeoutError):
            await client.wait_ready(0.05)
        await client.close()
        with pytest.raises(EngineNotInitialized):
            await waiting
