"""Bodies that are valid JSON and yet meant, or likely, to hurt."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.support.live_server import eventually

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
PROMPT = {"prompt": "Hello", "max_tokens": 1}
ROUTES = [("/v1/chat/completions", CHAT), ("/v1/completions", PROMPT), ("/generate", PROMPT)]


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=[path for path, _ in ROUTES])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", 2**31),
        ("top_k", 2**70),
        ("stop_token_ids", [2**70]),
        ("stop_token_ids", [-5]),
        ("logit_bias", {str(2**70): 1}),
        ("logit_bias", {"999999": 1}),
        ("logit_bias", {"-1": 1}),
    ],
    ids=str,
)
def test_numbers_out_of_range_name_their_field(server, path, body, field, value):
    answer = server.post(path, body | {field: value})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    if path.startswith("/v1/"):
        assert error["param"] == field
    else:
        assert field in error


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/v1/completions", {"prompt": [[1]] * 100_000}, "prompts"),
        ("/v1/completions", {"prompt": ["a"] * 100_000}, "prompts"),
        ("/v1/completions", {"prompt": [1] * 100_000 + ["a"]}, "prompts"),
        ("/v1/completions", {"prompt": [1] * 100_000}, "context_length_exceeded"),
        ("/v1/chat/completions", {"messages": [{}] * 100_000}, "messages"),
        ("/v1/chat/completions", CHAT | {"stop_token_ids": [1] * 100_000}, "stop_token_ids"),
        ("/v1/chat/completions", CHAT | {"stop": ["a"] * 100_000}, "stop"),
        (
            "/v1/chat/completions",
            CHAT | {"logit_bias": {str(i): 1 for i in range(100_000)}},
            "logit_bias",
        ),
    ],
)
def test_long_lists_are_refused(server, path, body, word):
    answer = server.post(path, body)
    assert answer.status_code == 400
    assert word in answer.json()["error"]["message"]


@pytest.mark.parametrize("prompt", [[True], [1, True], [[1], [True]], [[]], [1, "a"], {}])
def test_what_is_no_prompt(server, prompt):
    answer = server.post("/v1/completions", {"prompt": prompt})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


def clients_that_left(server) -> float:
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'status="499"' in line)


def test_an_upload_that_is_cut_off_is_no_defect(server):
    port = int(server.url.rsplit(":", 1)[1])
    head = (
        b"POST /generate HTTP/1.1\r\nHost: x\r\nX-Request-Id: cut-off\r\n"
        b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
    before = clients_that_left(server)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + b'{"pro')
    eventually(lambda: clients_that_left(server) == before + 1)
    ours = [line for line in server.lines if line.get("http_request_id") == "cut-off"]
    assert not [line for line in ours if line["level"] == "error"], ours


@pytest.mark.parametrize(("path", "allowed"), [("/generate", "POST"), ("/v1/models", "GET")])
def test_a_wrong_method_is_told_the_right_one(server, path, allowed):
    answer = httpx.put(server.url + path)
    assert answer.status_code == 405
    assert allowed in answer.headers["allow"]
