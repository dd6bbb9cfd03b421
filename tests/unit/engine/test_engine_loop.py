"""The worker's loop over a real socket, in a thread, on the hash model."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import msgspec
import pytest

from rocmforge.config import EngineConfig
from rocmforge.engine import loop as engine_loop
from rocmforge.engine.loop import EngineLoop
from rocmforge.errors import (
    GpuMemoryAllocationFailed,
    InvalidRequest,
    QueueCapacityExceeded,
    RocmForgeError,
)
from rocmforge.wire.beat import BeatPage, EnginePhase
from rocmforge.wire.channel import (
    BlockingChannel,
    ChannelClosed,
    ChannelError,
    FrameReader,
    encode_frame,
)
from rocmforge.wire.protocol import (
    Cancel,
    FromEngine,
    Heartbeat,
    Shutdown,
    StartEngine,
    StepOutput,
    Submit,
)
from tests.support.tiny_engine import Collected, answer_alone, hash_engine, request


class Server:
    """Process A's end of the socket, blocking."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(5.0)
        self.frames = FrameReader()
        self.inbox = []

    def send(self, *messages):
        self.sock.sendall(b"".join(encode_frame(m) for m in messages))

    def receive(self):
        while not self.inbox:
            data = self.sock.recv(65536)
            assert data, "the engine closed the channel"
            self.inbox += [
                msgspec.msgpack.decode(f, type=FromEngine) for f in self.frames.feed(data)
            ]
        return self.inbox.pop(0)

    def collect(self, collected, done):
        while not done(collected):
            message = self.receive()
            if isinstance(message, StepOutput):
                collected.take(message)
        return collected


@contextmanager
def running(engine, early=()):
    """The loop in a thread: (server, page, outcome), where outcome gets the exit code or error."""
    ours, theirs = socket.socketpair()
    page, outcome = BeatPage.create(), []
    loop = EngineLoop(BlockingChannel(theirs), page, engine)

    def body():
        try:
            outcome.append(loop.run(early))
        except RocmForgeError as error:
            outcome.append(error)
        theirs.close()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield Server(ours), page, outcome
    finally:
        ours.close()
        thread.join(5.0)
        assert not thread.is_alive()
        page.close()


def is_complete(*keys):
    return lambda collected: all(
        key in collected.answers and collected.answers[key].finish_reason for key in keys
    )


def test_serves_requests_and_leaves_when_told():
    engine, _ = hash_engine()
    with running(engine) as (server, page, outcome):
        server.send(Submit(request("a", range(20), n=2)), Submit(request("b", range(9))))
        collected = server.collect(Collected(), is_complete(("a", 0), ("a", 1), ("b", 0)))
        server.send(Shutdown())
        while not outcome:
            time.sleep(0.01)
        assert outcome == [0]
        assert page.phase is EnginePhase.stopping
    alone = answer_alone(hash_engine, request("x", range(20), n=2))
    assert [collected.answers["a", c] for c in range(2)] == alone


def test_messages_that_came_with_the_first_are_not_lost():
    engine, _ = hash_engine()
    with running(engine, early=[Submit(request("a"))]) as (server, _, _):
        server.collect(Collected(), is_complete(("a", 0)))


def test_refused_requests_are_answered_with_their_error():
    engine, _ = hash_engine(batch=1, queue=1)
    with running(engine) as (server, _, outcome):
        server.send(
            Submit(request("empty", prompt=())),
            *(Submit(request(str(i), max_tokens=None)) for i in range(3)),
        )
        collected = server.collect(Collected(), lambda c: len(c.errors) == 2)
        assert isinstance(collected.errors["empty"], InvalidRequest)
        assert collected.errors["empty"].param == "prompt"
        assert isinstance(collected.errors["2"], QueueCapacityExceeded)
        assert not outcome


def test_cancelled_requests_say_nothing_more():
    engine, _ = hash_engine(n_ctx=10**6, n_blocks=10**5)
    with running(engine) as (server, _, _):
        server.send(Submit(request("long", max_tokens=None)), Cancel("nobody"))
        collected = server.collect(Collected(), lambda c: ("long", 0) in c.answers)
        server.send(Cancel("long"), Submit(request("next", max_tokens=5)))
        server.collect(collected, is_complete(("next", 0)))
        while not isinstance(message := server.receive(), Heartbeat):
            assert not message.tokens
        assert message.stats.n_running == 0
        assert message.stats.blocks_used == 0


def test_beats_while_it_is_idle(monkeypatch):
    monkeypatch.setattr(engine_loop, "HEARTBEAT_S", 0.15)
    engine, _ = hash_engine()
    with running(engine) as (server, page, _):
        assert isinstance(server.receive(), Heartbeat)
        before = page.loop_beats
        assert isinstance(server.receive(), Heartbeat)
        assert page.loop_beats > before


def test_leaves_when_the_server_is_gone():
    engine, _ = hash_engine()
    with running(engine) as (server, _, outcome):
        server.send(Submit(request(max_tokens=None)))
        server.receive()
    assert isinstance(outcome[0], ChannelClosed)


@pytest.mark.parametrize("data", [b"garbage!", encode_frame(StartEngine(EngineConfig()))])
def test_leaves_when_the_server_babbles(data):
    engine, _ = hash_engine()
    with running(engine) as (server, _, outcome):
        server.sock.sendall(data)
        assert server.sock.recv(1) == b""
    assert isinstance(outcome[0], ChannelError)


def test_a_failing_device_ends_the_loop_with_its_error():
    engine, model = hash_engine()

    def fail(plan):
        raise GpuMemoryAllocationFailed("no memory")

    model.before_run = fail
    with running(engine) as (server, _, outcome):
        server.send(Submit(request()))
        assert server.sock.recv(1) == b""
    assert isinstance(outcome[0], GpuMemoryAllocationFailed)
