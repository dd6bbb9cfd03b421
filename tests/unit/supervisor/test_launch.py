"""An engine that was launched before its supervisor: taken over, replaced when dead, discarded."""

from __future__ import annotations

import os
import sys

import pytest

from rocmforge.config import EngineConfig, LogConfig, SupervisorConfig
from rocmforge.supervisor.client import EngineClient
from rocmforge.supervisor.launch import launch
from tests.support.fake_engine import command, undisturbed
from tests.support.scripted_engine import FAST, read_all, request


def client_of(launched, replacement) -> EngineClient:
    return EngineClient(
        EngineConfig(), SupervisorConfig(**FAST), command=replacement, launched=launched
    )


@pytest.mark.parametrize("is_told", [True, False])
async def test_the_launched_engine_is_the_first_one(tmp_path, is_told):
    launched = launch(command(tmp_path / "lives", {}))
    if is_told:
        launched.tell(EngineConfig(), LogConfig())
    client = client_of(launched, ["/nonexistent/engine"])
    await client.start()
    facts = await client.wait_ready(20)
    assert launched.is_adopted
    assert client.status.pid == launched.popen.pid
    assert facts.pid == launched.popen.pid
    assert client.status.restarts_total == 0
    await client.close()
    assert launched.popen.returncode is not None


async def test_one_that_died_before_is_replaced(tmp_path):
    launched = launch((sys.executable, "-c", "raise SystemExit(7)"))
    launched.popen.wait(20)
    launched.tell(EngineConfig(), LogConfig())  # notices nothing
    client = client_of(launched, command(tmp_path / "lives", {}))
    await client.start()
    await client.wait_ready(20)
    assert [crash.exit_code for crash in client.status.crashes] == [7]
    asked = request()
    assert await read_all(client.submit(asked)) == undisturbed(asked)
    await client.close()


async def test_its_successor_is_told_by_the_supervisor(tmp_path):
    lives = command(tmp_path / "lives", {"after": 3, "how": "sigkill"}, {})
    launched = launch(lives)
    launched.tell(EngineConfig(), LogConfig())
    client = client_of(launched, lives)
    await client.start()
    await client.wait_ready(20)
    asked = request()
    assert await read_all(client.submit(asked)) == undisturbed(asked)
    assert client.status.restarts_total == 1
    assert client.status.pid != launched.popen.pid
    await client.close()


def test_discarded_it_is_gone():
    launched = launch((sys.executable, "-c", "import time; time.sleep(100)"))
    fds = launched.connection.fileno(), launched.page.fileno()
    launched.discard()
    assert launched.popen.returncode == -9
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_what_cannot_be_launched_leaves_nothing_open():
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):
        launch(["/nonexistent/engine"])
    assert os.listdir("/proc/self/fd") == before
