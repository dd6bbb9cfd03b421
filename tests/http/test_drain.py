"""A server that is told to stop: what its deadline, a hang-up and further signals do."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import contextmanager

import httpx

from tests.support.live_server import eventually, live_server

BODY = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "temperature": 0}
ROUTES = [
    ("/generate/stream", BODY),
    ("/v1/completions", BODY | {"stream": True}),
    ("/v1/completions", BODY | {"stream": True, "n": 2}),
    ("/v1/completions", BODY | {"stream": True, "prompt": ["Once", "Twice"]}),
]


class Lines:
    """A stream's lines, read in a thread of their own until it ends."""

    def __init__(self, url: str, body: dict) -> None:
        self.lines: list[str] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(url, body))
        self._thread.start()

    def _read(self, url: str, body: dict) -> None:
        try:
            with httpx.stream("POST", url, json=body, timeout=60) as stream:
                self.lines.extend(stream.iter_lines())
        except httpx.HTTPError as error:
            self.error = error

    def join(self) -> list[str]:
        self._thread.join(60)
        return [line for line in self.lines if line and not line.startswith(":")]


@contextmanager
def held_streams(**settings: object):
    """A server with a stream of every kind whose engine is held: none can finish by itself."""
    with live_server(**settings) as server:
        server.wait_ready()
        readers = [Lines(server.url + path, body) for path, body in ROUTES]
        eventually(lambda: all(len(reader.lines) >= 2 for reader in readers))
        engine = server.engine_pid()
        os.kill(engine, signal.SIGSTOP)
        yield server, readers
        assert not os.path.exists(f"/proc/{engine}")


def assert_ended_with_their_error(readers: list[Lines]) -> None:
    told = [reader.join() for reader in readers]
    assert [reader.error for reader in readers] == [None] * len(readers)
    assert told[0][-2] == "event: error"
    native = json.loads(told[0][-1].removeprefix("data: "))
    assert native["category"] == "recoverable"
    assert native["recoverable"]
    for lines in told[1:]:
        error = json.loads(lines[-1].removeprefix("data: "))["error"]
        assert error["code"] == "engine_not_initialized"
        assert error["category"] == "recoverable"


def test_streams_cut_at_the_deadline_end_with_their_error():
    with held_streams(drain_timeout_s=0.5) as (server, readers):
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert server.events("drain_timed_out")
        assert_ended_with_their_error(readers)


def test_a_second_signal_ends_them_with_their_error_at_once():
    with held_streams(drain_timeout_s=60) as (server, readers):
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.events("stopping"))
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit(10) == 0
        assert_ended_with_their_error(readers)


def test_an_answer_that_is_no_stream_is_cut_with_a_status():
    with live_server(drain_timeout_s=0.3) as server:
        server.wait_ready()
        answers = []
        body = BODY | {"n": 8}
        client = threading.Thread(
            target=lambda: answers.append(server.post("/v1/completions", body))
        )
        client.start()
        eventually(lambda: server.metric("rocmforge_requests_started_total") == 1)
        os.kill(server.engine_pid(), signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        client.join(10)
        assert answers[0].status_code == 503
        assert 1 <= int(answers[0].headers["retry-after"]) <= 120


def test_a_hangup_without_a_terminal_stops_nothing():
    with live_server() as server:
        server.wait_ready()
        reader = Lines(server.url + "/generate/stream", BODY)
        eventually(lambda: len(reader.lines) >= 2)
        server.process.send_signal(signal.SIGHUP)
        assert '"finish_reason":"length"' in reader.join()[-1]
        assert server.get("/ready").status_code == 200


def test_a_terminal_that_closes_lets_answers_finish():
    ours, theirs = os.openpty()
    with live_server(terminal=theirs) as server:
        os.close(theirs)
        server.wait_ready()
        reader = Lines(server.url + "/generate/stream", BODY)
        eventually(lambda: len(reader.lines) >= 2)
        os.close(ours)
        assert '"finish_reason":"length"' in reader.join()[-1]
        assert server.wait_exit() == 0
        assert server.events("stopping")[0]["signal"] == "SIGHUP"
