from __future__ import annotations

import asyncio
import json

from rocmforge.errors import InferenceFailed
from rocmforge.server.stream import DONE, PING, EventStream, event, with_pings


async def collect(chunks, **options):
    """What an EventStream sends, and whether its end was told."""
    sent, ended = [], []

    async def send(message):
        sent.append(message)

    async def on_end():
        ended.append(True)

    options = {
        "ping_interval_s": 5.0,
        "failure": lambda error: event({"error": error.message}, "error"),
        "receive": asyncio.Event().wait,
    } | options
    receive = options.pop("receive")
    stream = EventStream(chunks, on_end=on_end, **options)
    await stream({"type": "http"}, receive, send)
    assert ended == [True]
    return sent


def test_an_event_is_one_line():
    assert event({"a": "x\ny"}) == b'data: {"a":"x\\ny"}\n\n'
    assert event({}, "error").startswith(b"event: error\ndata: ")


async def test_all_chunks_then_the_end():
    async def chunks():
        yield event({"n": 1})
        yield DONE

    start, *bodies, last = await collect(chunks())
    assert start["status"] == 200
    headers = dict(start["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert [b["body"] for b in bodies] == [event({"n": 1}), DONE]
    assert last["more_body"] is False


async def test_a_failure_is_told_and_the_stream_closed():
    async def chunks():
        yield event({"n": 1})
        raise InferenceFailed("no logits")

    *_, failure, last = await collect(chunks())
    assert failure["body"].startswith(b"event: error")
    assert json.loads(failure["body"].split(b"data: ")[1]) == {"error": "no logits"}
    assert last["more_body"] is False


async def test_a_defect_is_told_too():
    async def chunks():
        yield event({"n": 1})
        raise ZeroDivisionError

    *_, failure, _ = await collect(chunks())
    assert b"see the log" in failure["body"]


async def test_a_client_that_leaves_ends_it():
    closed = []

    async def chunks():
        try:
            yield event({"n": 1})
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    gone = asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    asyncio.get_running_loop().call_later(0.05, gone.set)
    sent = await asyncio.wait_for(collect(chunks(), receive=receive), 5)
    assert closed == [True]
    assert sent[-1]["more_body"] is True


async def test_pings_fill_silences_and_lose_nothing():
    async def chunks():
        for i in range(3):
            await asyncio.sleep(0.12)
            yield b"%d" % i

    got = [chunk async for chunk in with_pings(chunks(), 0.03)]
    assert got.count(PING) >= 6
    assert [c for c in got if c != PING] == [b"0", b"1", b"2"]
    assert got[0] == PING
