"""What is left after the server's own end, and files that change under it."""

from __future__ import annotations

import os
import shutil
import signal

import psutil
import pytest

from rocmforge.embedded import EMBEDDED_MODEL_PATH
from tests.http.test_lifecycle import BODY, Reader
from tests.support.live_server import eventually, live_server


def children_of(server) -> list[psutil.Process]:
    """The engine and the template helper."""
    return psutil.Process(server.process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_kill_of_the_server_leaves_no_process():
    with live_server() as server:
        server.wait_ready()
        server.post("/apply-template", {"messages": [{"role": "user", "content": "x"}]})
        reader = Reader(server.url, "/generate/stream", BODY | {"max_tokens": 4000})
        eventually(lambda: reader.n_data >= 3)
        processes = children_of(server)
        assert len(processes) >= 2
        server.process.kill()
        server.process.wait()
        eventually(lambda: all_gone(processes), 3.0)
        reader.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_lets_answers_finish(number):
    with live_server() as server:
        server.wait_ready()
        reader = Reader(server.url, "/generate/stream", BODY | {"max_tokens": 2500})
        eventually(lambda: reader.n_data >= 3)
        processes = children_of(server)
        os.killpg(server.process.pid, number)
        events = reader.join()
        assert len(events) == 2500
        assert events[-1]["finished"]
        assert server.wait_exit() == 0
        eventually(lambda: all_gone(processes), 3.0)


def test_a_model_file_truncated_while_serving_costs_nothing(tmp_path):
    path = tmp_path / "model.gguf"
    shutil.copy(EMBEDDED_MODEL_PATH, path)
    body = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}
    with live_server(model=path, supervisor_circuit_open_s=1) as server:
        server.wait_ready()
        before = server.post("/generate", body).json()["text"]
        os.truncate(path, 1000)
        assert server.post("/generate", body).json()["text"] == before
        chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        assert server.post("/v1/chat/completions", chat).status_code == 200
        os.kill(server.engine_pid(), signal.SIGKILL)
        # The new engine cannot read the file: the server says so and stays.
        eventually(lambda: server.get("/ready").status_code == 503)
        eventually(lambda: server.get("/health").json()["checks"]["engine"]["restarts"] >= 1)
        refused = server.post("/generate", body | {"max_tokens": 1})
        assert refused.status_code == 503
        assert server.process.poll() is None
        shutil.copy(EMBEDDED_MODEL_PATH, path)
        eventually(lambda: server.get("/ready").status_code == 200, 60.0)
        assert server.post("/generate", body).json()["text"] == before
