"""The engine as a process: its first words, its manners, and how it leaves."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from rocmforge.config import EngineConfig, LogConfig
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.engine import worker as worker_module
from rocmforge.request import Request, SamplingParams
from rocmforge.wire.beat import BeatPage, EnginePhase
from rocmforge.wire.channel import BlockingChannel, FrameReader, encode_frame
from rocmforge.wire.protocol import (
    EngineFailed,
    EngineReady,
    FromEngine,
    LoadProgress,
    Shutdown,
    StartEngine,
    StepOutput,
    Submit,
)

CONFIG = EngineConfig(model_path=str(EMBEDDED_MODEL_PATH), n_threads=1, max_sequence_length=512)


class Worker:
    """A started engine process, with A's end of the socket."""

    def __init__(self, command):
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(60.0)
        self.page = BeatPage.create()
        fds = (theirs.fileno(), self.page.fileno())
        self.popen = subprocess.Popen(
            [*command, "--fd", str(fds[0]), "--beat-fd", str(fds[1])],
            pass_fds=fds,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        theirs.close()
        self.frames = FrameReader()
        self.inbox = []

    def send(self, message):
        self.sock.sendall(encode_frame(message))

    def receive(self):
        while not self.inbox:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.inbox += [
                msgspec.msgpack.decode(f, type=FromEngine) for f in self.frames.feed(data)
            ]
        return self.inbox.pop(0)

    def receive_until(self, kind):
        while not isinstance(message := self.receive(), kind):
            assert message is not None, self.popen.stderr.read().decode()
        return message


@contextmanager
def started(command=(sys.executable, "-m", "rocmforge.engine.worker")):
    worker = Worker(command)
    try:
        yield worker
    finally:
        worker.sock.close()
        worker.popen.kill()
        worker.popen.wait()
        worker.popen.stderr.close()
        worker.page.close()


@contextmanager
def ready():
    with started() as worker:
        worker.send(StartEngine(config=CONFIG, log=LogConfig(level="debug")))
        worker.facts = worker.receive_until(EngineReady).facts
        yield worker


def endless(request_id="r", n=1):
    return Submit(
        Request(
            request_id=request_id,
            prompt_ids=tuple(range(10, 40)),
            params=SamplingParams(ignore_eos=True, seed=1, n=n),
        )
    )


def test_loads_tells_how_far_it_is_and_serves():
    with started() as worker:
        worker.send(StartEngine(config=CONFIG, log=LogConfig(level="debug")))
        percents, phases = [], []
        while isinstance(message := worker.receive(), LoadProgress):
            percents.append(message.percent)
            phases.append(message.phase)
        assert isinstance(message, EngineReady), message
        assert percents == sorted(percents)
        assert percents[-1] == 100.0
        assert list(dict.fromkeys(phases)) == ["read", "pack", "plan", "warm"]
        facts = message.facts
        assert facts.pid == worker.popen.pid
        assert (facts.backend, facts.n_threads, facts.n_ctx) == ("cpu", 1, 512)
        assert facts.architecture == "llama"
        assert facts.kv_bytes > 0
        assert facts.deterministic
        worker.send(endless())
        step = worker.receive_until(StepOutput)
        assert step.started[0].request_id == "r"
        assert worker.page.phase is EnginePhase.serving
        assert worker.page.ops_done > 0
        worker.send(Shutdown())
        assert worker.popen.wait(2.0) == 0


@pytest.mark.parametrize(
    ("content", "names"),
    [(None, {"IoError", "ModelLoadFailed"}), (b"no model at all" * 10, {"InvalidModelFile"})],
)
def test_a_model_that_cannot_be_loaded_is_reported_and_the_process_leaves(tmp_path, content, names):
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with started() as worker:
        worker.send(StartEngine(config=dataclasses.replace(CONFIG, model_path=str(path))))
        failed = worker.receive_until(EngineFailed)
        assert failed.error.name in names
        assert path.name in failed.error.message
        assert worker.popen.wait(2.0) == 1


def test_the_first_message_must_be_start_engine():
    with started() as worker:
        worker.send(Shutdown())
        assert worker.receive_until(EngineFailed).error.name == "ChannelError"
        assert worker.popen.wait(2.0) == 1


def test_another_protocol_version_is_refused():
    with started() as worker:
        worker.send(StartEngine(config=CONFIG, protocol_version=999))
        assert "999" in worker.receive_until(EngineFailed).error.message


def test_leaves_at_once_when_its_socket_closes():
    with ready() as worker:
        worker.send(endless(n=4))
        worker.receive_until(StepOutput)
        worker.sock.close()
        assert worker.popen.wait(1.0) != 0


def test_leaves_when_its_socket_closes_while_it_loads():
    with started() as worker:
        worker.sock.close()
        assert worker.popen.wait(5.0) != 0


def test_a_stuck_step_does_not_keep_it():
    """The watch is a thread of its own: the main thread may hang in a step."""
    code = (
        "import argparse, sys, threading, time\n"
        "from rocmforge.engine.worker import detach, leave_with_server\n"
        "fd = int(sys.argv[sys.argv.index('--fd') + 1])\n"
        "threading.Thread(target=leave_with_server, args=(fd,), daemon=True).start()\n"
        "sys.stderr.write('up\\n'); sys.stderr.flush()\n"
        "time.sleep(60)\n"
    )
    with started((sys.executable, "-c", code)) as worker:
        worker.popen.stderr.readline()
        worker.sock.sendall(b"messages alone do not end it")
        time.sleep(0.2)
        assert worker.popen.poll() is None
        worker.sock.close()
        assert worker.popen.wait(1.0) == 3


def test_manners():
    with ready() as worker:
        pid = worker.popen.pid
        os.kill(pid, signal.SIGINT)
        worker.send(endless())
        worker.receive_until(StepOutput)
        assert os.getsid(pid) == pid
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > 0


@pytest.mark.parametrize("kind", [MemoryError, KeyError])
def test_any_other_exception_is_told_to_the_server(monkeypatch, kind):
    def fail(*_args, **_keywords):
        raise kind("a defect")

    monkeypatch.setattr(worker_module, "start_engine", fail)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10.0)
        ours.sendall(encode_frame(StartEngine(config=CONFIG)))
        page = BeatPage.create()
        assert worker_module._run(BlockingChannel(theirs), page, None) == worker_module.EXIT_FAILED
        (frame,) = FrameReader().feed(ours.recv(65536))
        message = msgspec.msgpack.decode(frame, type=FromEngine)
        page.close()
    assert isinstance(message, EngineFailed)
    assert message.error.name == "InternalError"
    assert kind.__name__ in message.error.message
