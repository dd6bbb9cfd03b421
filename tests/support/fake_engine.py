"""A scripted engine process: the wire protocol and deterministic tokens, without a model.

Started like the real worker, with one more argument, a JSON script:

    {"counter": file whose size counts the lives, "lives": [life, …] (the last one repeats),
     "step_s": pause between steps, "load_s": length of the load, "n_vocab": token ids are below}

A life is {} for a sound engine, or says how it ends:

    {"start": "exit" | "sigkill" | "hang" | "garbage" | "fail:ErrorName"}  before it is ready
    {"after": n, "how": one of ENDINGS}                                    after n tokens
    {"cancel_lag": steps}           goes on for cancelled requests for a while, like a real one
    {"stats": {field: value}}       reports these EngineStats, once it has sent a token
    {"kv_bytes": n}                 has a cache of this size, unless it is told another
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
import zlib
from pathlib import Path

from rocmforge.config import EngineConfig
from rocmforge.errors import error_from_name
from rocmforge.request import FinishReason, Request
from rocmforge.wire.beat import BeatPage, EnginePhase
from rocmforge.wire.channel import BlockingChannel, ChannelClosed, encode_frame
from rocmforge.wire.lifeline import die_with_parent
from rocmforge.wire.protocol import (
    Cancel,
    EngineFacts,
    EngineFailed,
    EngineReady,
    EngineStats,
    Heartbeat,
    LoadProgress,
    RequestFailed,
    RequestStarted,
    Shutdown,
    StartEngine,
    StepOutput,
    Submit,
    TokenOutput,
    WireError,
)

ENDINGS = (
    "sigkill",
    "exit",
    "abort",
    "hang",
    "close",
    "garbage",
    "zeros",
    "oversized",
    "truncated",
    "wrong_type",
    "repeat",
    "skip",
    "foreign",
)


N_VOCAB = 50_000


def fake_token(request: Request, choice: int, generated: list[int], n_vocab: int = N_VOCAB) -> int:
    """A token that depends on everything that a resumed request has to carry over."""
    state = (request.prompt_ids, request.params.seed, choice, tuple(generated))
    return zlib.crc32(repr(state).encode()) % n_vocab


def undisturbed(request: Request) -> dict[int, list[int]]:
    """What the client must read: the token ids of every choice."""
    result = {}
    for choice in range(request.params.n):
        ids: list[int] = []
        for _ in range(request.params.max_tokens or 16):
            ids.append(fake_token(request, choice, ids))
        result[choice] = ids
    return result


def facts(config: EngineConfig, kv_bytes: int) -> EngineFacts:
    """Plausible facts; kv_bytes where the configuration leaves it open."""
    return EngineFacts(
        pid=os.getpid(), backend="fake", device="none", isa="none", n_threads=1,
        weight_types={"F32": 1}, decoded_types={}, activation_dtype="f32", kv_type="f32",
        kv_bytes=config.cache.kv_bytes or kv_bytes, weight_bytes=0, architecture="fake",
        n_vocab=50_000, n_ctx=config.max_sequence_length or 4096,
        n_ctx_train=4096, n_blocks=1, block_tokens=16, max_batch_size=32, max_step_tokens=512,
        deterministic=True, load_s=0.0,
    )  # fmt: skip


class FakeEngine:
    """One life."""

    def __init__(self, fd: int, beat_fd: int, script: dict, life: dict) -> None:
        self.channel = BlockingChannel.from_fd(fd)
        self.page = BeatPage.attach(beat_fd)
        self.script = script
        self.life = life
        self.live: dict[str, tuple[Request, dict[int, list[int]], bool]] = {}
        self.arrived_s: dict[str, float] = {}
        self.cancelled: dict[str, int] = {}
        self.n_sent = 0

    def run(self) -> None:
        start = self.wait_for_first()
        assert isinstance(start, StartEngine)
        self.page.phase = EnginePhase.loading
        self.start_badly(self.life.get("start", ""))
        for percent in (0.0, 50.0, 100.0):
            self.channel.send(LoadProgress(phase="read", percent=percent))
            time.sleep(self.script.get("load_s", 0.0) / 3)
        self.page.phase = EnginePhase.serving
        self.channel.send(EngineReady(facts=facts(start.config, self.life.get("kv_bytes", 4096))))
        while True:
            self.page.beat()
            for message in self.channel.receive(0.0 if self.live else 0.05):
                self.take(message)
            if self.live:
                self.step()
                time.sleep(self.script.get("step_s", 0.001))
            else:
                self.channel.send(Heartbeat(stats=self.stats()))

    def wait_for_first(self):
        while not (messages := self.channel.receive(10.0)):
            pass
        return messages[0]

    def start_badly(self, how: str) -> None:
        if how.startswith("fail:"):
            error = error_from_name(how.removeprefix("fail:"), "the fake model is no good")
            self.channel.send(EngineFailed(error=WireError.of(error)))
            sys.exit(1)
        if how:
            self.end(how)

    def take(self, message) -> None:
        if isinstance(message, Shutdown):
            sys.exit(0)
        if isinstance(message, Submit):
            request = message.request
            given = request.generated or ((),) * request.params.n
            running = {c: list(ids) for c, ids in enumerate(given) if c not in request.finished}
            self.live[request.request_id] = (request, running, False)
            self.arrived_s[request.request_id] = time.monotonic()
        elif isinstance(message, Cancel) and message.request_id in self.live:
            if message.choice is None:
                self.cancelled[message.request_id] = self.life.get("cancel_lag", 0)
            else:
                self.live[message.request_id][1].pop(message.choice, None)

    def step(self) -> None:
        started, tokens = [], []
        for request_id, lag in list(self.cancelled.items()):
            self.cancelled[request_id] = lag - 1
            if lag <= 0:
                del self.cancelled[request_id]
                self.live.pop(request_id, None)
        for request_id, (request, running, is_started) in list(self.live.items()):
            if 666 in request.prompt_ids:
                self.emit(started, tokens)
                self.end("sigkill")
            if 404 in request.prompt_ids:
                error = error_from_name("InferenceFailed", "not a number")
                failed = RequestFailed(request_id=request_id, error=WireError.of(error))
                self.channel.send(StepOutput(failed=(failed,)))
                del self.live[request_id]
                continue
            if not is_started:
                wait_s = time.monotonic() - self.arrived_s.pop(request_id)
                started.append(RequestStarted(request_id, 0, wait_s))
                self.live[request_id] = (request, running, True)
            for choice in list(running):
                if self.n_sent + len(tokens) == self.life.get("after"):
                    self.emit(started, tokens)
                    self.end(self.life["how"], (request, choice, running[choice]))
                tokens.append(self.next_token(request, choice, running))
            if not running:
                del self.live[request_id]
        self.emit(started, tokens)

    def next_token(self, request: Request, choice: int, running: dict) -> TokenOutput:
        ids = running[choice]
        token = TokenOutput(
            request.request_id,
            choice,
            len(ids),
            fake_token(request, choice, ids, self.script.get("n_vocab", N_VOCAB)),
            FinishReason.length if len(ids) + 1 >= (request.params.max_tokens or 16) else None,
        )
        ids.append(token.token_id)
        if token.finish_reason:
            del running[choice]
        return token

    def emit(self, started: list, tokens: list) -> None:
        self.n_sent += len(tokens)
        self.channel.send(
            StepOutput(tokens=tuple(tokens), started=tuple(started), stats=self.stats())
        )

    def stats(self) -> EngineStats:
        told = self.life.get("stats", {}) if self.n_sent else {}
        return EngineStats(
            **{"n_running": len(self.live), "generated_tokens_total": self.n_sent} | told
        )

    def end(self, how: str, at=None) -> None:
        """Leave, in one of the ways that engines leave."""
        if how == "exit":
            os._exit(3)
        if how == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "abort":
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGABRT)
        raw = socket.socket(fileno=os.dup(self.channel.fileno()))
        if how == "close":
            raw.shutdown(socket.SHUT_RDWR)
        elif how == "garbage":
            raw.sendall(b"Traceback (most recent call last):\n")
        elif how == "zeros":
            raw.sendall(bytes(4096))
        elif how == "oversized":
            raw.sendall(b"RFW1\xff\xff\xff\xff")
        elif how == "wrong_type":
            raw.sendall(encode_frame(Shutdown()))
        elif how == "truncated":
            raw.sendall(bytes(encode_frame(Heartbeat(stats=EngineStats()))[:20]))
            os._exit(0)
        elif how in ("repeat", "skip", "foreign"):
            self.break_protocol(how, *at)
        time.sleep(3600)

    def break_protocol(self, how: str, request: Request, choice: int, ids: list[int]) -> None:
        index = {"repeat": len(ids) - 1, "skip": len(ids) + 1, "foreign": 0}[how]
        request_id = "nobody's" if how == "foreign" else request.request_id
        self.channel.send(StepOutput(tokens=(TokenOutput(request_id, choice, index, 1),)))


def command(counter: Path, *lives: dict, **script) -> list[str]:
    """The command line of an engine with this script."""
    text = json.dumps({"counter": str(counter), "lives": list(lives) or [{}], **script})
    return [sys.executable, "-m", "tests.support.fake_engine", "--script", text]


def main() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parser = argparse.ArgumentParser()
    parser.add_argument("--script", type=json.loads)
    parser.add_argument("--fd", type=int)
    parser.add_argument("--beat-fd", type=int)
    parser.add_argument("--weights-fd", type=int)
    arguments = parser.parse_args()
    counter = Path(arguments.script["counter"])
    number = counter.stat().st_size if counter.exists() else 0
    with counter.open("ab") as file:
        file.write(b".")
    lives = arguments.script["lives"]
    life = lives[min(number, len(lives) - 1)]
    try:
        FakeEngine(arguments.fd, arguments.beat_fd, arguments.script, life).run()
    except ChannelClosed:
        sys.exit(0)


if __name__ == "__main__":
    main()
