"""From the first second to the last: loading, readiness, signals, engines that die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading

import httpx
import psutil
import pytest

from tests.support.live_server import LiveServer, eventually, live_server

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
BODY = {"prompt": "Once", "max_tokens": 600, "ignore_eos": True, "temperature": 0}


class Reader:
    """A client that reads a stream in its own thread."""

    def __init__(self, url: str, path: str, body: dict) -> None:
        self.lines: list[str] = []
        self.n_data = 0
        self._thread = threading.Thread(target=self._read, args=(url + path, body))
        self._thread.start()

    def _read(self, url: str, body: dict) -> None:
        # A server that is told to leave at once cuts the connection.
        with (
            contextlib.suppress(httpx.RemoteProtocolError),
            httpx.stream("POST", url, json=body, timeout=60) as stream,
        ):
            for line in stream.iter_lines():
                self.lines.append(line)
                self.n_data += line.startswith("data: ")

    def join(self) -> list[dict]:
        self._thread.join(60)
        data = [line.removeprefix("data: ") for line in self.lines if line.startswith("data: ")]
        return [json.loads(item) for item in data if item != "[DONE]"]


def stopped_engine(server):
    """The engine's process, held as soon as it has begun, before it can be ready."""
    children = psutil.Process(server.process.pid).children
    eventually(children)
    (engine,) = children()
    engine.suspend()
    return engine


def test_before_the_engine_is_ready_every_answer_says_so():
    server = LiveServer()
    try:
        engine = stopped_engine(server)
        server.wait_listening()
        assert server.get("/ready").status_code == 503
        refused = server.post("/v1/chat/completions", CHAT)
        assert refused.status_code == 503
        error = refused.json()["error"]
        assert error["code"] == "model_loading"
        assert "%" in error["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        engine.resume()
        eventually(lambda: server.get("/ready").status_code == 200)
        assert server.post("/v1/chat/completions", CHAT).status_code == 200
    finally:
        server.close()


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    server = LiveServer(model=path)
    assert server.wait_exit() == 2
    assert "version" in "".join(server.raw)


def test_a_model_that_does_not_fit_ends_the_server_with_the_numbers():
    # A cache for 100,000 full sequences is larger than any machine.
    options = ("--kv-bytes", str(10**15), "--max-batch-size", "100000")
    server = LiveServer(*options, scheduler_max_step_tokens=100000)
    assert server.wait_exit(60) == 2
    (why,) = server.events("model_not_loaded")
    assert "the model needs" in why["error"]
    assert "GB are available" in why["error"]


def test_an_address_in_use_is_refused_at_once(server):
    port = server.url.rsplit(":", 1)[1]
    second = LiveServer("--port", port)
    assert second.wait_exit() == 2
    assert "--port" in "".join(second.raw)


def test_sigterm_lets_running_answers_finish_and_refuses_new_ones():
    with live_server() as server:
        server.wait_ready()
        reader = Reader(server.url, "/generate/stream", BODY | {"max_tokens": 3000})
        eventually(lambda: reader.n_data >= 5)
        engine = server.engine_pid()
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.events("stopping"))
        refused = server.post("/v1/chat/completions", CHAT)
        assert refused.status_code == 503
        assert server.get("/ready").status_code == 503
        events = reader.join()
        assert events[-1]["finished"]
        assert events[-1]["finish_reason"] == "length"
        assert len(events) == 3000
        assert server.wait_exit() == 0
        assert not os.path.exists(f"/proc/{engine}")


def test_a_second_signal_leaves_now():
    with live_server() as server:
        server.wait_ready()
        reader = Reader(server.url, "/generate/stream", BODY | {"max_tokens": 4000})
        eventually(lambda: reader.n_data >= 5)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.events("stopping"))
        server.process.send_signal(signal.SIGINT)
        server.wait_exit(10)
        assert len(reader.join()) < 4000


STREAMS = [
    ("/v1/completions", {"stream": True, "seed": 1} | BODY),
    ("/v1/completions", {"stream": True, "seed": 2} | BODY | {"temperature": 1.0}),
    ("/v1/completions", {"stream": True, "seed": 3, "n": 3} | BODY | {"temperature": 0.8}),
    ("/v1/completions", {"stream": True, "seed": 4, "logprobs": 2} | BODY | {"top_p": 0.9}),
    ("/generate/stream", {"seed": 5} | BODY | {"temperature": 1.2, "top_k": 40}),
]


def told(events: list[dict]) -> list:
    """A stream without what differs from request to request."""
    return [
        event["choices"] if "choices" in event else (event["token"], event["text"])
        for event in events
    ]


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSEGV])
def test_an_engine_killed_in_mid_stream_costs_a_pause_and_nothing_else(ending):
    with live_server(supervisor_restart_delay_s=0.01) as server:
        server.wait_ready()
        undisturbed = [Reader(server.url, path, body) for path, body in STREAMS]
        expected = [told(reader.join()) for reader in undisturbed]
        readers = [Reader(server.url, path, body) for path, body in STREAMS]
        eventually(lambda: all(reader.n_data >= 4 for reader in readers))
        pid = server.engine_pid()
        os.kill(pid, ending)
        sent = [reader.n_data for reader in readers]
        events = [told(reader.join()) for reader in readers]
        # Each stream had begun and lacked at least 20 tokens when the engine died.
        assert all(n >= 1 for n in sent)
        assert all(len(e) - n >= 20 for n, e in zip(sent, events, strict=True))
        assert events[0] == expected[0]
        assert events[1] == expected[1]
        # Choices of one request may come in another order.
        key = [sorted(map(str, stream)) for stream in (events[2], expected[2])]
        assert key[0] == key[1]
        assert events[3:] == expected[3:]
        props = server.props()["engine"]
        assert props["pid"] != pid
        assert props["restarts"] == 1
        assert props["restarts_by_cause"] == {"killed": 1}
        assert props["crashes"][0]["signal_name"] == ending.name
        assert server.metric("rocmforge_requests_resumed_total") == len(STREAMS)
        assert server.get("/health").json()["status"] == "healthy"


def test_health_tells_the_truth_about_a_stopped_engine():
    with live_server(supervisor_hang_timeout_s=60) as server:
        server.wait_ready()
        pid = server.engine_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: server.get("/health").status_code == 503)
            health = server.get("/health").json()
            assert health["status"] == "unhealthy"
            assert not health["checks"]["engine"]["running"]
            assert "sign of life" in server.get("/ready").json()["reason"]
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: server.get("/health").json()["status"] == "healthy")
