"""More work than is taken on: refused early and with a time to come back, the rest unharmed."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import contextmanager

import pytest

from tests.http.test_drain import Lines
from tests.support.live_server import eventually, live_server, read_answer

LONG = {"prompt": "Once", "max_tokens": 1000, "ignore_eos": True, "temperature": 0}
SHORT = {"prompt": "Once", "max_tokens": 5}
CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}


def refused(server, reason: str) -> float:
    return server.metric(f'rocmforge_requests_refused_total{{reason="{reason}"}}')


@contextmanager
def full_server(n_streams: int, **settings: object):
    """A server with so many streams on the way, whose engine is held meanwhile."""
    with live_server(supervisor_hang_timeout_s=60, **settings) as server:
        server.wait_ready()
        alone = server.post("/generate", LONG).json()["text"]
        server.post("/generate", SHORT)
        engine = server.engine_pid()
        os.kill(engine, signal.SIGSTOP)
        readers = [Lines(server.url + "/generate/stream", LONG) for _ in range(n_streams)]
        eventually(lambda: server.metric("rocmforge_live_requests") == n_streams)
        yield server
        os.kill(engine, signal.SIGCONT)
        for reader in readers:
            lines = reader.join()
            assert '"finish_reason":"length"' in lines[-1]
        eventually(lambda: server.post("/generate", SHORT).status_code == 200)
        assert server.post("/generate", LONG).json()["text"] == alone


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        ("requests", {"max_live_requests": 3}),
        ("tokens", {"overload_max_queued_tokens": 3 * 1002}),
    ],
)
def test_what_is_too_much_is_refused_at_once(reason, settings):
    with full_server(3, **settings) as server:
        before = refused(server, reason)
        routes = [("/generate", SHORT), ("/generate/stream", SHORT), ("/v1/completions", SHORT)]
        for path, body in [*routes, ("/v1/chat/completions", CHAT)]:
            start = time.monotonic()
            answer = server.post(path, body)
            assert time.monotonic() - start < 1.0
            assert answer.status_code == 503
            # Two short requests have just ended: there is room sooner than the usual minute.
            assert 1 <= int(answer.headers["retry-after"]) < 60
            if path.startswith("/v1"):
                assert answer.json()["error"]["code"] == "server_overloaded"
        assert refused(server, reason) == before + 4


def test_the_refusal_comes_before_the_body():
    with full_server(2, max_live_requests=2) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as one:
            one.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                b"content-type: application/json\r\ncontent-length: 100\r\n\r\n"
            )
            assert read_answer(one).startswith(b"HTTP/1.1 503")
            # The body comes late, and the connection is good for another request.
            one.sendall(b" " * 100)
            one.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert read_answer(one).startswith(b"HTTP/1.1 ")


def test_a_crowd_that_uploads_cannot_pass_the_limit_together():
    with live_server(max_live_requests=2) as server:
        server.wait_ready()
        host, port = server.url.removeprefix("http://").split(":")
        head = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
        uploads = [socket.create_connection((host, int(port)), timeout=10) for _ in range(2)]
        for upload in uploads:
            upload.sendall(head)
        eventually(lambda: server.post("/generate", SHORT).status_code == 503)
        for upload in uploads:
            upload.close()
        eventually(lambda: server.post("/generate", SHORT).status_code == 200)
