"""Frames over a socket pair: whole ones come through, anything else is an error at once."""

from __future__ import annotations

import asyncio
import os
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocmforge.config import CacheConfig, EngineConfig
from rocmforge.errors import InternalError
from rocmforge.request import FinishReason, Request, SamplingParams, TokenLogprob
from rocmforge.wire.channel import (
    FRAME_MAGIC,
    AsyncChannel,
    BlockingChannel,
    ChannelClosed,
    ChannelError,
    FrameReader,
    encode_frame,
)
from rocmforge.wire.protocol import (
    Cancel,
    EngineStats,
    Heartbeat,
    LoadProgress,
    Shutdown,
    StartEngine,
    StepOutput,
    Submit,
    TokenOutput,
)

REQUEST = Request(
    request_id="r",
    prompt_ids=(1, 2, 3),
    params=SamplingParams(n=2, seed=7, stop=("a",), logit_bias={5: -1.5}),
    eog_ids=(2,),
    generated=((4, 5), ()),
    finished=(1,),
)
TO_ENGINE = [
    StartEngine(config=EngineConfig(model_path="m.gguf", cache=CacheConfig(kv_bytes=1))),
    Submit(request=REQUEST),
    Cancel(request_id="r", choice=1),
    Shutdown(),
]
TOKEN = TokenOutput("r", 1, 0, 9, FinishReason.stop, -0.5, (TokenLogprob(9, -0.5),))
FROM_ENGINE = [
    LoadProgress(phase="read", percent=1.5),
    StepOutput(tokens=(TOKEN,), stats=EngineStats(n_running=1)),
    Heartbeat(stats=EngineStats()),
]


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    with a, b:
        yield a, b


async def both_ends(pair):
    return await AsyncChannel.open(pair[0]), BlockingChannel(pair[1])


async def test_every_message_survives_the_way_there_and_back(pair):
    server, engine = await both_ends(pair)
    for message in TO_ENGINE:
        server.send(message)
    await asyncio.sleep(0)
    assert engine.receive(1.0) == TO_ENGINE
    for message in FROM_ENGINE:
        engine.send(message)
    received = []
    while len(received) < len(FROM_ENGINE):
        received += await server.receive()
    assert received == FROM_ENGINE
    await server.close()


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.data())
def test_frames_are_cut_alike_however_the_bytes_arrive(payloads, data):
    stream = b"".join(FRAME_MAGIC + len(p).to_bytes(4, "big") + p for p in payloads)
    frames = FrameReader()
    seen, rest = [], stream
    while rest:
        n = data.draw(st.integers(1, len(rest)))
        seen += list(frames.feed(rest[:n]))
        rest = rest[n:]
    assert seen == payloads
    assert frames.n_pending_bytes == 0


@pytest.mark.parametrize(
    "babble",
    [
        b"T",
        b"Traceback (most recent call last)",
        bytes(3),
        FRAME_MAGIC + b"\xff\xff\xff\xff",
        FRAME_MAGIC + bytes(4),
        FRAME_MAGIC + (101).to_bytes(4, "big"),
    ],
)
def test_garbage_is_an_error_at_its_first_bytes(babble):
    with pytest.raises(ChannelError):
        list(FrameReader(max_frame_bytes=100).feed(babble))


@pytest.mark.parametrize(
    "payload", [b"\xc1", b"\x01\x02", b"\x81\xa4type\xa5Other", bytes(encode_frame(Shutdown()))[8:]]
)
async def test_a_frame_that_is_no_message_for_the_server_is_an_error(pair, payload):
    server, _ = await both_ends(pair)
    pair[1].sendall(FRAME_MAGIC + len(payload).to_bytes(4, "big") + payload)
    with pytest.raises(ChannelError) as caught:
        await server.receive()
    assert not isinstance(caught.value, ChannelClosed)
    assert isinstance(caught.value, InternalError)
    await server.close()


async def test_what_came_before_the_garbage_is_read_first(pair):
    server, _ = await both_ends(pair)
    pair[1].sendall(bytes(encode_frame(FROM_ENGINE[0])) + b"garbage")
    assert await server.receive() == FROM_ENGINE[:1]
    for _ in range(2):
        with pytest.raises(ChannelError, match="not a frame"):
            await server.receive()
    await server.close()


async def test_a_closed_peer_is_told_apart_from_garbage_on_both_sides(pair):
    server, engine = await both_ends(pair)
    await server.close()
    with pytest.raises(ChannelClosed):
        engine.receive(1.0)
    with pytest.raises(ChannelClosed):
        engine.send(FROM_ENGINE[0])


async def test_a_frame_cut_off_by_death_is_a_closed_channel(pair):
    server, engine = await both_ends(pair)
    pair[1].sendall(bytes(encode_frame(FROM_ENGINE[1]))[:-1])
    engine.close()
    with pytest.raises(ChannelClosed, match="inside a frame"):
        await server.receive()
    server.send(Shutdown())  # dropped: receive() has said that nobody is there
    await server.close()


async def test_what_was_sent_before_death_is_read_though_unread_input_was_left(pair):
    server, engine = await both_ends(pair)
    server.send(TO_ENGINE[0])
    await asyncio.sleep(0.01)
    engine.send(FROM_ENGINE[0])
    engine.close()  # with the server's message still in its buffer: a reset, not an end
    assert await server.receive() == [FROM_ENGINE[0]]
    with pytest.raises(ChannelClosed):
        await server.receive()
    await server.close()


async def test_messages_larger_than_a_frame_are_refused_before_they_are_sent(pair):
    server = await AsyncChannel.open(pair[0], max_frame_bytes=64)
    with pytest.raises(ChannelError, match="larger than a frame"):
        server.send(
            Submit(request=Request(request_id="x" * 64, prompt_ids=(), params=REQUEST.params))
        )
    server.send(Shutdown())
    await asyncio.sleep(0)
    assert BlockingChannel(pair[1], max_frame_bytes=64).receive(1.0) == [Shutdown()]
    await server.close()


def test_receive_returns_nothing_after_its_time(pair):
    engine = BlockingChannel(pair[1])
    assert engine.receive(0.0) == []
    pair[0].sendall(FRAME_MAGIC)  # a part of a frame is nothing yet
    assert engine.receive(0.02) == []
    pair[0].sendall(bytes(encode_frame(Shutdown()))[4:])
    assert engine.receive(1.0) == [Shutdown()]


async def test_both_can_send_far_more_than_the_buffers_hold_at_once(pair):
    """Neither side waits for the other to read before it reads: no deadlock."""
    server, engine = await both_ends(pair)
    big = Request(request_id="big", prompt_ids=tuple(range(100_000)), params=REQUEST.params)
    n = 20

    def engine_side() -> None:
        received = 0
        for _ in range(n):
            engine.send(StepOutput(tokens=(TOKEN,) * 5000))
            received += len(engine.receive())
        while received < n:
            received += len(engine.receive(1.0))

    thread = threading.Thread(target=engine_side)
    thread.start()
    for _ in range(n):
        server.send(Submit(request=big))
    received = 0
    while received < n:
        received += len(await server.receive())
    await asyncio.to_thread(thread.join)
    await server.close()


def test_a_channel_from_a_descriptor_owns_it(pair):
    fd = os.dup(pair[1].fileno())
    engine = BlockingChannel.from_fd(fd)
    assert engine.fileno() == fd
    engine.close()
    with pytest.raises(OSError):
        os.fstat(fd)
