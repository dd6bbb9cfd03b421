"""The real server in a process of its own, as `rocmforge serve` starts it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from rocmforge.embedded import EMBEDDED_MODEL_PATH


class LiveServer:
    """A server, its address, and what it logged."""

    def __init__(
        self,
        *options: str,
        model: Path = EMBEDDED_MODEL_PATH,
        terminal: int | None = None,
        **settings: object,
    ) -> None:
        """settings become environment variables: `ping_interval_s=0.1`. terminal: the one that
        controls the server."""
        variables = {f"ROCMFORGE_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "rocmforge.cli.main", "serve", str(model), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--log-format", "json", *options],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | variables,
            start_new_session=True,
            preexec_fn=None if terminal is None else partial(controlled_by, terminal),
        )
        self.lines: list[dict] = []
        self.raw: list[str] = []
        self._listening = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.raw.append(line)
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                continue
            if self.lines[-1].get("event") == "listening":
                self.url = self.lines[-1]["url"]
                self._listening.set()
        self._listening.set()

    def wait_listening(self) -> str:
        assert self._listening.wait(30), "the server does not listen"
        assert self.url, "".join(self.raw)
        return self.url

    def wait_ready(self) -> LiveServer:
        self.wait_listening()
        eventually(lambda: self.get("/ready").status_code == 200)
        return self

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=headers, timeout=60)

    def props(self) -> dict:
        return self.get("/props").json()

    def engine_pid(self) -> int:
        return self.props()["engine"]["pid"]

    def metric(self, name: str) -> float:
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name}")

    def events(self, name: str) -> list[dict]:
        return [line for line in self.lines if line.get("event") == name]

    def wait_exit(self, timeout_s: float = 20) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        self.process.stderr.close()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
        self.process.stderr.close()


@contextmanager
def live_server(*options: str, **settings: object) -> Iterator[LiveServer]:
    """A server that listens; ready or not."""
    server = LiveServer(*options, **settings)
    try:
        server.wait_listening()
        yield server
    finally:
        server.close()


def controlled_by(terminal: int) -> None:
    """Make a terminal this session's own; its closing is told even under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def read_answer(connection: socket.socket) -> bytes:
    """One whole answer of a known length: head and body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some_of(connection)
    head, body = received.split(b"\r\n\r\n", 1)
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += _some_of(connection)
    return head + b"\r\n\r\n" + body


def _some_of(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    assert received, "closed before the answer was whole"
    return received


def eventually(holds, timeout_s: float = 20.0) -> None:
    """Wait until `holds()` is true."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"never happened: {holds}"
        time.sleep(0.02)
