"""Clients that send slowly or stop reading: they are given up on, and cost the others nothing."""

from __future__ import annotations

import json
import socket
import time
from contextlib import contextmanager

import psutil
import pytest

from tests.support.live_server import eventually, live_server, read_answer

SETTINGS = {
    "connections_header_timeout_s": 1,
    "connections_body_timeout_s": 1,
    "connections_write_timeout_s": 1,
    "connections_max_header_bytes": 4096,
    "connections_max_connections": 20,
}
# The text of one event is about 100 bytes: more than socket buffers hold, all told.
STREAM = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "temperature": 0, "n": 16}


@pytest.fixture(scope="module")
def strict():
    """A server with short limits."""
    with live_server(**SETTINGS) as server:
        yield server.wait_ready()


@contextmanager
def connection(server, receive_bytes: int | None = None):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as one:
        if receive_bytes is not None:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        one.settimeout(10)
        one.connect((host, int(port)))
        yield one


def rest_of(one: socket.socket) -> bytes:
    received = b""
    try:
        while more := one.recv(65536):
            received += more
    except ConnectionResetError:
        pass
    return received


def drip(one: socket.socket, data: bytes) -> None:
    for start in range(0, len(data), 4096):
        one.sendall(data[start : start + 4096])
        time.sleep(0.001)


def slow(server, stage: str) -> float:
    return server.metric(f'rocmforge_slow_clients_total{{stage="{stage}"}}')


def post(path: str, body: bytes, n_bytes: int | None = None) -> bytes:
    length = len(body) if n_bytes is None else n_bytes
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
    return head.encode() + body


def test_headers_that_drip_are_cut_off(strict):
    before = slow(strict, "headers")
    with connection(strict) as one:
        one.sendall(b"POST /generate HTTP/1.1\r\n")
        start = time.monotonic()
        answer = b""
        for byte in b"x-slow: " + b"a" * 100:
            time.sleep(0.1)
            try:
                one.sendall(bytes([byte]))
            except OSError:
                break
        answer = rest_of(one)
        assert time.monotonic() - start < 5
        assert not answer or answer.startswith(b"HTTP/1.1 408")
    assert slow(strict, "headers") == before + 1


def test_headers_in_time_cost_nothing_however_they_are_cut(strict):
    with connection(strict) as one:
        for piece in (b"GET /hea", b"lth HTTP/1.1\r\nho", b"st: x\r\nconnection: close\r\n\r\n"):
            one.sendall(piece)
            time.sleep(0.05)
        assert rest_of(one).startswith(b"HTTP/1.1 200")


def test_a_connection_that_says_nothing_is_closed(strict):
    with connection(strict) as one:
        assert rest_of(one) == b""


@pytest.mark.parametrize("n_bytes", [5000, 2**20])
@pytest.mark.parametrize("ends", [True, False])
def test_large_headers_are_refused(strict, n_bytes, ends):
    with connection(strict) as one:
        try:
            one.sendall(b"GET /health HTTP/1.1\r\nx-large: " + b"a" * n_bytes)
            if ends:
                one.sendall(b"\r\n\r\n")
        except OSError:
            pass  # it did not read on
        answer = rest_of(one)
        # Closed with bytes unread, a connection may be reset before its answer is read.
        assert n_bytes > 5000 or answer.startswith(b"HTTP/1.1 431")
        if answer:
            assert json.loads(answer.split(b"\r\n\r\n")[1])["category"] == "user"


def test_a_body_that_drips_is_cut_off(strict):
    before = slow(strict, "body")
    with connection(strict) as one:
        one.sendall(post("/v1/completions", b'{"prompt": "', 1000))
        answer = rest_of(one)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "upload_timed_out"
    assert slow(strict, "body") == before + 1


def test_too_many_connections_are_told_so(strict):
    others = [connection(strict) for _ in range(20)]
    for other in others:
        other.__enter__()
    try:
        with connection(strict) as one:
            answer = rest_of(one)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: " in answer.lower()
    finally:
        for other in others:
            other.__exit__(None, None, None)
    eventually(lambda: strict.get("/health").status_code == 200)


def test_a_reader_that_stops_is_cut_off_and_its_request_cancelled(strict):
    before, cancelled = slow(strict, "reader"), strict.metric("rocmforge_requests_cancelled_total")
    with connection(strict, receive_bytes=4096) as one:
        one.sendall(post("/v1/completions", json.dumps(STREAM | {"stream": True}).encode()))
        one.recv(100)
        eventually(lambda: slow(strict, "reader") == before + 1)
        eventually(lambda: strict.metric("rocmforge_requests_cancelled_total") == cancelled + 1)
    eventually(lambda: strict.metric("rocmforge_cache_pages_used") == 0)


def test_what_nobody_reads_is_bounded():
    # The client's time to read is long: only the count of unread events ends its request.
    with live_server(connections_max_unread_events=200) as server:
        server.wait_ready()
        memory = psutil.Process(server.process.pid).memory_info().rss
        with connection(server, receive_bytes=4096) as one:
            one.sendall(post("/v1/completions", json.dumps(STREAM | {"stream": True}).encode()))
            one.recv(100)
            eventually(lambda: server.events("reader_stopped"))
            eventually(lambda: server.metric("rocmforge_cache_pages_used") == 0)
            answer = server.post("/generate", {"prompt": "Once", "max_tokens": 5})
            assert answer.status_code == 200
            grown = psutil.Process(server.process.pid).memory_info().rss - memory
            assert grown < 32 * 2**20
            rest = rest_of(one)
        # It has got what there was until then, and is told that this is not all.
        assert b'"code":"deadline_exceeded"' in rest.split(b"\n\n")[-2]


def test_a_body_behind_an_early_answer_is_no_head(strict):
    """404 comes before the body; the connection serves on when the body is through."""
    with connection(strict) as one:
        one.sendall(post("/nowhere", b"a" * 1000, 200_000))
        assert read_answer(one).startswith(b"HTTP/1.1 404")
        for _ in range(199):
            one.sendall(b"a" * 1000)
        one.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert rest_of(one).startswith(b"HTTP/1.1 200")


def test_an_endless_head_behind_a_running_stream_is_cut(strict):
    """Pipelined bytes are counted while the answer before them is being sent."""
    with connection(strict) as one:
        one.sendall(
            post("/v1/completions", json.dumps({**STREAM, "n": 1, "stream": True}).encode())
        )
        assert one.recv(100).startswith(b"HTTP/1.1 200")
        with pytest.raises(OSError):
            drip(one, b"GET /health HTTP/1.1\r\nx-large: " + b"a" * 2**22)
