"""The server process dies or is told to stop while it answers: no engine process is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.live_engine import processes_of_session


@contextmanager
def driver() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A streaming server process in a process group of its own, and its engine's pid."""
    command = [sys.executable, "-m", "tests.support.engine_driver"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            engine_pid = read_until(process, "engine_pid")
            while read_until(process, "n_least") < 3:
                continue
            yield process, engine_pid
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], key: str) -> int:
    """The value of the next line that has `key`."""
    for line in process.stdout:
        fields = json.loads(line)
        if key in fields:
            return fields[key]
    raise AssertionError(f"the process ended before it said {key!r}")


def gone_within(engine_pid: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while processes_of_session(engine_pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_kill_of_the_server_leaves_no_engine():
    with driver() as (server, engine_pid):
        assert engine_pid in processes_of_session(engine_pid)
        server.kill()
        server.wait(5.0)
        assert gone_within(engine_pid, 2.0)


def test_kill_of_the_server_takes_a_stopped_engine_with_it():
    with driver() as (server, engine_pid):
        os.kill(engine_pid, signal.SIGSTOP)
        server.kill()
        server.wait(5.0)
        assert gone_within(engine_pid, 2.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_drains_and_leaves_none(number):
    with driver() as (server, engine_pid):
        os.killpg(server.pid, number)
        assert read_until(server, "complete") is True
        assert server.wait(10.0) == 0
        assert gone_within(engine_pid, 2.0)
