"""kill -9 of the engine while it answers: every stream goes on, bit-identical."""

from __future__ import annotations

import asyncio
import os
import signal

from rocmforge.request import RequestState
from rocmforge.supervisor.client import EngineState
from tests.support.live_engine import (
    Streams,
    Striker,
    live_engine,
    mixed_requests,
    processes_of_session,
)


async def test_streams_are_identical_over_three_kills():
    # Long enough that the last to begin has begun well before the first has nearly ended.
    requests = mixed_requests(max_tokens=350)
    async with live_engine() as client:
        undisturbed = await Streams(client, requests).read()
        assert client.status.restarts_total == 0
    async with live_engine() as client:
        first_pid = client.status.pid
        streams = Streams(client, requests)
        striker = Striker(streams, at=(1, 25, 50))
        await streams.read(on_token=striker)
        status = client.status
        assert striker.n_strikes == 3
        assert status.restarts_by_cause == {"killed": 3}
        assert status.requests_resumed_total == 3 * len(requests)
        assert streams.n_recoveries == 3 * len(requests)
        assert status.pid != first_pid
        assert not processes_of_session(first_pid)
    # Tokens, indices, log-probabilities and finish reasons, all of them.
    assert streams.tokens == undisturbed.tokens


async def test_requests_that_come_while_the_engine_is_away_are_answered():
    requests = mixed_requests(max_tokens=40)
    late = mixed_requests(max_tokens=40)[:2]
    async with live_engine() as client:
        undisturbed = await Streams(client, late).read()
        os.kill(client.status.pid, signal.SIGKILL)
        while client.status.state is EngineState.ready:
            await asyncio.sleep(0.001)
        assert client.status.state is EngineState.recovering
        streams = await Streams(client, late).read()
        assert streams.tokens == undisturbed.tokens
        everything = await Streams(client, requests).read()
        assert everything.n_recoveries == 0


async def test_an_engine_killed_again_and_again_while_it_loads_is_replaced_until_one_lives():
    requests = mixed_requests(max_tokens=30)[:2]
    async with live_engine() as client:
        undisturbed = await Streams(client, requests).read()
        killed = set()
        while len(killed) < 3:
            pid = client.status.pid
            if pid is not None and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            await asyncio.sleep(0.001)
        streams = await Streams(client, requests).read()
        assert client.status.restarts_by_cause == {"killed": 3}
    assert streams.tokens == undisturbed.tokens


async def test_a_cancelled_stream_stays_cancelled_over_a_kill():
    kept, gone = mixed_requests()[:2]
    async with live_engine() as client:
        undisturbed = await Streams(client, [kept]).read()
        gone_handle = client.submit(gone)
        streams = Streams(client, [kept])
        striker = Striker(streams, at=(10,))

        def on_token() -> None:
            if streams.n_least == 5:
                gone_handle.cancel()
            striker()

        await streams.read(on_token=on_token)
        assert striker.n_strikes == 1
        assert client.status.requests_resumed_total == 1
        assert gone_handle.state is RequestState.Cancelled
        while client.status.stats.n_running:
            await asyncio.sleep(0.01)
    assert streams.tokens == undisturbed.tokens
