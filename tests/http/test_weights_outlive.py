"""A killed engine's successor finds the weights in memory."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from rocmforge.embedded import EMBEDDED_MODEL_PATH
from tests.support.live_server import eventually, live_server

BODY = {"prompt": "Once", "max_tokens": 40, "ignore_eos": True, "temperature": 0}


def text(server):
    return server.post("/generate", BODY).json()["text"]


def facts(server):
    return server.props()["engine"]["facts"]


def kill_engine(server):
    pid = server.engine_pid()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.engine_pid() not in (pid, None) and ready(server))


def ready(server):
    return server.get("/ready").status_code == 200


def maps(pid):
    """Access rights of the maps of the weights store."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[1] for line in lines if "memfd:rocmforge-weights" in line}


def test_the_next_engine_takes_the_weights_from_memory():
    with live_server(supervisor_restart_delay_s=0.01) as server:
        server.wait_ready()
        before, first = text(server), facts(server)
        assert first["weights_source"] == "file"
        assert maps(first["pid"]) == {"r--s"}
        assert maps(server.process.pid) == set()
        for _ in range(2):
            kill_engine(server)
            later = facts(server)
            assert later["weights_source"] == "shared"
            assert maps(later["pid"]) == {"r--s"}
            assert text(server) == before
            assert (later["n_blocks"], later["n_ctx"]) == (first["n_blocks"], first["n_ctx"])
        assert not server.events("shared_weights_refused")


def test_weights_can_stay_private():
    with live_server("--no-shared-weights", supervisor_restart_delay_s=0.01) as server:
        server.wait_ready()
        before = text(server)
        assert maps(facts(server)["pid"]) == set()
        kill_engine(server)
        assert facts(server)["weights_source"] == "file"
        assert text(server) == before


def test_a_replaced_model_file_is_read_again(tmp_path):
    path = tmp_path / "model.gguf"
    shutil.copy(EMBEDDED_MODEL_PATH, path)
    with live_server(model=path, supervisor_restart_delay_s=0.01) as server:
        server.wait_ready()
        before = text(server)
        shutil.copy(EMBEDDED_MODEL_PATH, tmp_path / "copy")
        os.replace(tmp_path / "copy", path)
        kill_engine(server)
        assert facts(server)["weights_source"] == "file"
        assert text(server) == before
        kill_engine(server)
        assert facts(server)["weights_source"] == "shared"


@pytest.mark.parametrize("n_kills", [3])
def test_an_engine_killed_while_it_packs_leaves_nothing_that_is_used(n_kills):
    with live_server(supervisor_restart_delay_s=0.01, supervisor_max_restarts=9) as server:
        server.wait_listening()
        killed = set()
        for _ in range(n_kills):
            eventually(lambda: server.engine_pid() not in (None, *killed))
            os.kill(pid := server.engine_pid(), signal.SIGKILL)
            killed.add(pid)
        eventually(lambda: server.engine_pid() not in (None, *killed) and ready(server))
        expected = text(server)
        kill_engine(server)
        assert facts(server)["weights_source"] == "shared"
        assert text(server) == expected
