"""One consumer, one terminal event."""

from __future__ import annotations

import asyncio

import pytest

from rocmforge.errors import GenerationFailed
from rocmforge.request import RequestState
from rocmforge.supervisor.handle import RequestHandle
from rocmforge.wire.protocol import RequestStarted, TokenOutput

STARTED = RequestStarted("r", 0, 0.0)


def make(cancelled=None) -> RequestHandle:
    calls = [] if cancelled is None else cancelled
    return RequestHandle("r", lambda *args: calls.append(args))


async def test_events_come_in_order_then_the_end():
    handle = make()
    assert handle.state is RequestState.Pending
    tokens = [TokenOutput("r", 0, i, i) for i in range(3)]
    reading = asyncio.create_task(collect(handle))
    for event in [STARTED, *tokens]:
        handle.put(event)
        await asyncio.sleep(0)
    assert handle.state is RequestState.Processing
    handle.end(RequestState.Completed)
    assert await reading == [STARTED, *tokens]
    assert await collect(handle) == []


async def collect(handle) -> list:
    return [event async for event in handle]


async def test_an_error_is_raised_once_after_the_events():
    handle = make()
    handle.put(STARTED)
    handle.end(RequestState.Failed, GenerationFailed("no"))
    assert await anext(handle) is STARTED
    with pytest.raises(GenerationFailed):
        await anext(handle)
    assert await collect(handle) == []


async def test_a_second_terminal_event_is_a_defect():
    handle = make()
    handle.end(RequestState.Completed)
    with pytest.raises(AssertionError):
        handle.end(RequestState.Cancelled)


async def test_cancelling_drops_what_was_not_read():
    calls: list = []
    handle = make(calls)
    handle.put(TokenOutput("r", 0, 0, 1))
    handle.put(TokenOutput("r", 1, 0, 2))
    handle.cancel(choice=0)
    assert (await anext(handle)).choice == 1
    handle.put(TokenOutput("r", 1, 1, 3))
    handle.cancel()
    handle.end(RequestState.Cancelled)
    assert await collect(handle) == []
    assert calls == [("r", 0), ("r", None)]


async def test_leaving_the_block_cancels_unless_it_has_ended():
    calls: list = []
    with make(calls):
        pass
    with make(calls) as ended:
        ended.end(RequestState.Completed)
    assert calls == [("r", None)]


async def test_all_that_is_there_is_taken_at_once():
    handle = make()
    tokens = [TokenOutput("r", 0, i, i) for i in range(3)]
    taking = asyncio.create_task(handle.take())
    await asyncio.sleep(0)
    handle.put(STARTED)
    handle.put(tokens[0])
    assert await taking == [STARTED, tokens[0]]
    handle.put(tokens[1])
    handle.put(tokens[2])
    handle.end(RequestState.Completed)
    assert await handle.take() == tokens[1:]
    assert await handle.take() == []


async def test_a_taken_list_is_without_cancelled_choices():
    handle = make()
    handle.put(TokenOutput("r", 0, 0, 1))
    handle.put(TokenOutput("r", 1, 0, 2))
    handle.cancel(0)
    assert await handle.take() == [TokenOutput("r", 1, 0, 2)]


async def test_nothing_but_cancelled_tokens_is_waited_out():
    handle = make()
    handle.cancel(0)
    handle.put(TokenOutput("r", 0, 0, 1))
    taking = asyncio.create_task(handle.take())
    await asyncio.sleep(0.01)
    assert not taking.done()
    handle.end(RequestState.Failed, GenerationFailed("no"))
    with pytest.raises(GenerationFailed):
        await taking
    assert await handle.take() == []
