from __future__ import annotations

import asyncio
import json

import pytest

from rocmforge.errors import InferenceFailed, QueueCapacityExceeded
from rocmforge.server.stream import DONE, PING, EventStream, event


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


async def test_a_failure_before_the_first_chunk_leaves_the_status_open():
    async def chunks():
        raise QueueCapacityExceeded("full")
        yield b""

    sent, ended = [], []

    async def send(message):
        sent.append(message)

    async def on_end():
        ended.append(True)

    stream = EventStream(chunks(), ping_interval_s=5.0, failure=lambda _: b"", on_end=on_end)
    with pytest.raises(QueueCapacityExceeded):
        await stream({"type": "http"}, asyncio.Event().wait, send)
    assert sent == []
    assert ended == [True]


async def test_a_client_that_leaves_while_a_ping_waits_to_be_sent():
    """A slow client's full buffer blocks `send`: the source must be closable all the same."""

    async def source():
        await asyncio.sleep(60)
        yield b"late"

    generation, gone, closed = source(), asyncio.Event(), []

    async def chunks():
        async for chunk in generation:
            yield chunk

    async def send(message):
        if message.get("body") == PING:
            gone.set()
            await asyncio.sleep(60)

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def on_end():
        await generation.aclose()  # raises while somebody still reads
        closed.append(True)

    stream = EventStream(chunks(), ping_interval_s=0.02, failure=lambda _: b"", on_end=on_end)
    await asyncio.wait_for(stream({"type": "http"}, receive, send), 5)
    assert closed == [True]


async def test_pings_fill_silences_and_lose_nothing():
    async def chunks():
        for i in range(3):
            await asyncio.sleep(0.12)
            yield b"%d" % i

    start, *bodies, last = await collect(chunks(), ping_interval_s=0.03)
    assert start["type"] == "http.response.start"
    got = [body["body"] for body in bodies]
    assert got.count(PING) >= 6
    assert [c for c in got if c != PING] == [b"0", b"1", b"2"]
    assert got[0] == PING
    assert last == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_busy_stream_needs_no_pings():
    async def chunks():
        for _ in range(10):
            await asyncio.sleep(0.02)
            yield b"x"

    _, *bodies, _ = await collect(chunks(), ping_interval_s=0.1)
    assert [body["body"] for body in bodies] == [b"x"] * 10


async def test_a_failure_after_a_ping_is_told_in_the_stream():
    async def chunks():
        await asyncio.sleep(0.1)
        raise QueueCapacityExceeded("full")
        yield b""

    start, *pings, failure, last = await collect(chunks(), ping_interval_s=0.03)
    assert start["status"] == 200
    assert {ping["body"] for ping in pings} == {PING}
    assert failure["body"] == event({"error": "full"}, "error")
    assert last["more_body"] is False


async def test_a_stream_without_chunks_is_an_empty_answer():
    async def chunks():
        return
        yield b""

    start, empty, last = await collect(chunks())
    assert start["status"] == 200
    assert (empty["body"], last["body"]) == (b"", b"")


async def test_a_slow_client_gets_no_ping_between_a_chunk_and_its_own():
    """What waits to be sent goes out in order, however long `send` takes."""
    sent = []

    async def chunks():
        yield b"1"
        await asyncio.sleep(0.05)
        yield b"2"

    async def send(message):
        await asyncio.sleep(0.03)
        sent.append(message.get("body"))

    async def on_end():
        return

    stream = EventStream(chunks(), ping_interval_s=0.01, failure=lambda _: b"", on_end=on_end)
    await stream({"type": "http"}, asyncio.Event().wait, send)
    assert sent[0] is None  # the head
    assert [body for body in sent[1:] if body != PING] == [b"1", b"2", b""]
    assert sent[-1] == b""
