"""Servers as processes of their own, for serve.py: ours and llama.cpp's."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from serving import Turn

_LOAD_GENERATOR = Path(__file__).resolve().parent / "load_generator.py"
_START_TIMEOUT_S = 300.0
_POLL_S = 0.05


class ServerFailed(Exception):
    """A server or its clients ended with an error; the message holds what was said last."""


class Server:
    """A server that answers OpenAI's routes; `close` it in any case."""

    def __init__(self, name: str, command: list[str], health_path: str, port: int = 0) -> None:
        """port 0: the server picks one and logs a line of JSON with its `url`."""
        self.name = name
        self.port = port
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._wait_until(lambda: self.port != 0)
        self._wait_until(lambda: self._status(health_path) == 200)

    def ask(self, path: str) -> dict[str, Any]:
        """The JSON of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def processes(self) -> dict[str, list[int]]:
        """Process ids by the name under which their processor time is told."""
        return {"server": [self._process.pid]}

    def drive(self, path: str, bodies: list[dict[str, Any]]) -> Turn:
        """All bodies at once, from a load generator of their own. Raises ServerFailed."""
        spec = {"host": "127.0.0.1", "port": self.port, "path": path, "bodies": bodies}
        pids = self.processes()
        before = {name: sum(map(_cpu_s, ids)) for name, ids in pids.items()}
        done = subprocess.run(
            [sys.executable, str(_LOAD_GENERATOR)],
            input=json.dumps(spec),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerFailed(f"{self.name}: {done.stderr.strip()}\n{''.join(self._lines[-20:])}")
        cpu_s = {name: sum(map(_cpu_s, ids)) - before[name] for name, ids in pids.items()}
        result = json.loads(done.stdout)
        return _turn(result["answers"], cpu_s | {"clients": result["cpu_s"]})

    def close(self) -> None:
        """End it, and wait until it is gone."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            if self.port == 0 and line.startswith("{"):
                url = json.loads(line).get("url", "")
                self.port = int(url.rpartition(":")[2] or 0)
        self._process.stderr.close()

    def _wait_until(self, holds: Any) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not holds():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self._process.kill()
                raise ServerFailed(f"{self.name} did not start:\n{''.join(self._lines[-20:])}")
            time.sleep(_POLL_S)

    def _status(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:  # not listening yet
            return 0
        finally:
            connection.close()


class OurServer(Server):
    """`rocmforge serve FILE`."""

    def __init__(self, model: Path, *, threads: int, n_ctx: int, isa: str) -> None:
        command = [sys.executable, "-m", "rocmforge.cli.main", "serve", str(model)]
        options = ["--host", "127.0.0.1", "--port", "0", "--log-format", "json"]
        sizes = ["--threads", str(threads), "--ctx", str(n_ctx), "--isa", isa]
        super().__init__("rocmforge", [*command, *options, *sizes], "/ready")

    def processes(self) -> dict[str, list[int]]:
        """The server and the helper of its templates, and the engine."""
        engine: int = self.ask("/props")["engine"]["pid"]
        children = {child.pid for child in psutil.Process(self._process.pid).children()}
        return {"server": [self._process.pid, *(children - {engine})], "engine": [engine]}


class LlamaServer(Server):
    """llama.cpp's llama-server, a slot per client; everything else is as it chooses."""

    def __init__(
        self, binary: Path, model: Path, *, clients: int, threads: int, n_ctx: int
    ) -> None:
        port = _free_port()
        where = ["--host", "127.0.0.1", "--port", str(port), "-m", str(model)]
        sizes = ["-np", str(clients), "-c", str(n_ctx * clients), "-t", str(threads)]
        super().__init__("llama.cpp", [str(binary), *where, *sizes], "/health", port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _turn(answers: list[dict[str, Any]], cpu_s: dict[str, float]) -> Turn:
    return Turn(
        seconds=max(answer["end_s"] for answer in answers),
        n_tokens=sum(answer["n_tokens"] for answer in answers),
        arrivals_s=[answer["times_s"] for answer in answers],
        cpu_s=cpu_s,
        n_prompt_tokens=[answer["n_prompt_tokens"] for answer in answers],
        n_cached_tokens=[answer["n_cached_tokens"] for answer in answers],
    )
