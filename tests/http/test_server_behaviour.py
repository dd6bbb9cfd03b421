"""What holds for every route: ids, paths, keys, limits, clients that leave."""

from __future__ import annotations

import json
import re
import threading

import httpx
import openai
import pytest

from tests.support.live_server import eventually, live_server

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
LONG = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True}


def test_request_ids(server):
    assert server.get("/health").headers["x-request-id"].startswith("req-")
    given = httpx.get(server.url + "/nope", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    hostile = httpx.get(server.url + "/health", headers={"x-request-id": "a" * 200})
    assert hostile.headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("path", ["/v1//models", "/v1/models/", "//v1/models//"])
def test_sloppy_paths(server, path):
    assert server.get(path).json()["object"] == "list"


def test_errors_have_the_shape_of_their_routes(server):
    openai_style = server.get("/v1/nope")
    assert openai_style.status_code == 404
    assert openai_style.json()["error"].keys() >= {"message", "type", "param", "code"}
    native = server.get("/nope")
    assert native.status_code == 404
    assert native.json().keys() == {"error", "category", "recoverable", "status"}
    wrong_method = server.get("/generate")
    assert wrong_method.status_code == 405


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/generate", "/tokenize"])
@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"prompt": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b" " * (8 * 2**20 + 1), "application/json", 413),
    ],
    ids=["cut", "array", "no utf-8", "nan", "deep", "text", "large"],
)
def test_bodies_that_are_no_requests(server, path, content, kind, status):
    answer = httpx.post(server.url + path, content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert "error" in answer.json()


def test_a_large_body_without_a_length_is_cut_off(server):
    def endless():
        for _ in range(20):
            yield b" " * 2**20

    headers = {"content-type": "application/json"}
    answer = httpx.post(server.url + "/generate", content=endless(), headers=headers)
    assert answer.status_code == 413


def test_a_client_that_leaves_a_stream_is_cancelled(server):
    with httpx.stream("POST", server.url + "/generate/stream", json=LONG, timeout=30) as stream:
        lines = stream.iter_lines()
        request_id = json.loads(next(lines).removeprefix("data: "))["request_id"]
        assert server.get(f"/status/{request_id}").json()["status"] == "processing"
    eventually(lambda: server.get(f"/status/{request_id}").json()["status"] == "cancelled")
    eventually(lambda: server.get("/health").json()["checks"]["requests"]["active"] == 0)


def test_a_client_that_leaves_before_the_answer_is_cancelled(server):
    before = server.metric("rocmforge_requests_cancelled_total")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + "/generate", json=LONG, timeout=0.2)
    eventually(lambda: server.metric("rocmforge_requests_cancelled_total") == before + 1)
    eventually(lambda: server.get("/health").json()["checks"]["requests"]["active"] == 0)


def test_one_clients_leaving_leaves_the_others_alone(server):
    body = {"prompt": "Tell", "max_tokens": 300, "ignore_eos": True, "temperature": 0}
    alone = server.post("/generate", body).json()["text"]
    answers = []
    worker = threading.Thread(target=lambda: answers.append(server.post("/generate", body).json()))
    with httpx.stream("POST", server.url + "/generate/stream", json=LONG, timeout=30) as stream:
        next(stream.iter_lines())
        worker.start()
    worker.join(30)
    assert answers[0]["text"] == alone


def test_pings_while_nothing_is_ready(server):
    import os
    import signal

    with httpx.stream("POST", server.url + "/generate/stream", json=LONG, timeout=30) as stream:
        lines = stream.iter_lines()
        next(lines)
        pid = server.engine_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            assert any(line == ": ping" for line in lines)
        finally:
            os.kill(pid, signal.SIGCONT)


def test_api_keys():
    with live_server("--api-key", "secret-one", "--api-key", "secret-two") as server:
        server.wait_ready()  # probes need none
        assert server.get("/metrics").status_code == 200
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic secret-one"},
        ):
            answer = server.post("/v1/chat/completions", CHAT, **headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert server.get("/props").status_code == 401
        for headers in ({"authorization": "Bearer secret-two"}, {"x-api-key": "secret-one"}):
            assert server.post("/v1/chat/completions", CHAT, **headers).status_code == 200
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="secret-one", max_retries=0)
        with client:
            assert client.models.list().data
        assert not any("secret" in line for line in server.raw)


def test_prompts_and_answers_are_not_logged(tmp_path):
    with live_server("--log-level", "debug") as server:
        server.wait_ready()
        answer = server.post("/v1/completions", {"prompt": "Xylophone quartz", "max_tokens": 8})
        server.post(
            "/v1/chat/completions", {"messages": [{"role": "user", "content": "Xylophone"}]}
        )
        server.post("/v1/completions", {"prompt": {"Xylophone": 1}})
        text = answer.json()["choices"][0]["text"].strip()
    log = "".join(server.raw)
    assert not re.search("xylophone", log, re.IGNORECASE)
    assert len(text) < 4 or text not in log
    assert server.events("request_ended")
    assert all("http_request_id" in line for line in server.events("request_ended"))
