"""Programs that hold a model each and work in turn: questions and answers are lines of JSON.

A child calls `serve(commands)`; the parent holds a `Peer`. Between questions a child waits in a
read, so it takes nothing from the one that works; `Peer.core_ns` lets the parent check that.
Only the standard library is used, because llama.cpp's child runs in an environment of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[..., dict[str, Any]]


class PeerFailed(Exception):
    """A child ended before it answered; what it said is on stderr."""


def serve(commands: dict[str, Command]) -> None:
    """Answer until stdin ends. An exception ends the child, with its traceback on stderr."""
    # Whatever a library prints would be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        answer = commands[question.pop("command")](**question)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Peer:
    """A child process that serves."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        """The answer to a command; raises PeerFailed when the child ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"command": command, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerFailed(f"{self.name} ended with code {self._process.wait()} at {command!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def core_ns(self) -> tuple[int, int]:
        """Nanoseconds that its threads have spent on a core, and waiting for one."""
        return core_ns(str(self._process.pid))

    def close(self) -> None:
        """End the child: it leaves when its stdin does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended before
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def core_ns(process: str = "self") -> tuple[int, int]:
    """Nanoseconds that a process's threads spent on a core, and waiting for one (Linux only: 0, 0
    elsewhere)."""
    total_run = total_wait = 0
    for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            run_ns, wait_ns, _ = path.read_text("ascii").split()
        except OSError:  # the thread ended
            continue
        total_run += int(run_ns)
        total_wait += int(wait_ns)
    return total_run, total_wait
