"""The native routes."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.support.live_server import eventually

PROMPT = "1, 2, 3, 4, 5,"


def events_of(server, body, path="/generate/stream"):
    with httpx.stream("POST", server.url + path, json=body, timeout=30) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        return [
            json.loads(line.removeprefix("data: "))
            for line in stream.iter_lines()
            if line.startswith("data: ")
        ]


def test_generate(server):
    answer = server.post("/generate", {"prompt": PROMPT, "max_tokens": 6, "temperature": 0}).json()
    assert answer.keys() == {"request_id", "text", "tokens", "finished", "finish_reason"}
    assert answer["finished"] is True
    assert answer["finish_reason"] == "length"
    decoded = server.post("/detokenize", {"tokens": answer["tokens"]}).json()["content"]
    assert decoded == answer["text"]
    assert len(answer["tokens"]) == 6


@pytest.mark.parametrize(
    ("path", "more"), [("/generate/stream", {}), ("/generate", {"stream": True})]
)
def test_stream(server, path, more):
    body = {"prompt": PROMPT, "max_tokens": 9, "temperature": 0}
    whole = server.post("/generate", body).json()
    events = events_of(server, body | more, path)
    assert "".join(event["text"] for event in events) == whole["text"]
    assert [event["token"] for event in events] == whole["tokens"]
    assert [event["finished"] for event in events] == [False] * 8 + [True]
    assert [event["finish_reason"] for event in events] == [None] * 8 + ["length"]
    for event in events:
        assert event.keys() == {"request_id", "token", "text", "finished", "finish_reason"}
        assert all(isinstance(v, str | int | bool | None) for v in event.values())


def test_tokens_that_complete_no_character_have_no_text(server):
    prompt = "Say \U0001f642\U0001f642\U0001f642\U0001f642"
    ids = server.post("/tokenize", {"content": "\U0001f642"}).json()["tokens"]
    assert len(ids) > 1, "the character is one token"
    # Only the character's own tokens are left to choose from.
    bias = {str(token_id): 100 for token_id in ids}
    events = events_of(server, {"prompt": prompt, "max_tokens": 40, "logit_bias": bias, "seed": 1})
    assert any(event["text"] == "" for event in events[:-1])
    text = "".join(event["text"] for event in events)
    whole = server.post(
        "/generate", {"prompt": prompt, "max_tokens": 40, "logit_bias": bias, "seed": 1}
    ).json()
    assert text == whole["text"]


def test_the_defaults_sample_and_end(server):
    answer = server.post("/generate", {"prompt": "Hello"}).json()
    assert len(answer["tokens"]) <= 100


def test_status_and_cancel(server):
    body = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True}
    with httpx.stream("POST", server.url + "/generate/stream", json=body, timeout=30) as stream:
        lines = stream.iter_lines()
        first = json.loads(next(lines).removeprefix("data: "))
        status = server.get(f"/status/{first['request_id']}").json()
        assert status["status"] == "processing"
        assert status["tokens_generated"] >= 1
        answer = server.post(f"/cancel/{first['request_id']}", {})
        assert answer.json() == {"request_id": first["request_id"], "cancelled": True}
        last = [json.loads(line.removeprefix("data: ")) for line in lines if "data" in line][-1]
    assert last["finished"]
    assert last["finish_reason"] == "cancelled"
    status = server.get(f"/status/{first['request_id']}").json()
    assert status["status"] == "cancelled"
    assert status["finished"]
    again = server.post(f"/cancel/{first['request_id']}", {})
    assert again.json()["cancelled"] is False
    eventually(lambda: server.get("/health").json()["checks"]["requests"]["active"] == 0)


@pytest.mark.parametrize("path", ["/status/nobody", "/cancel/nobody"])
def test_unknown_requests(server, path):
    answer = server.get(path) if "status" in path else server.post(path, {})
    assert answer.status_code == 404
    assert answer.json()["status"] == "error"
    assert "nobody" in answer.json()["error"]


def test_status_of_a_finished_request(server):
    answer = server.post("/generate", {"prompt": PROMPT, "max_tokens": 3, "temperature": 0}).json()
    status = server.get(f"/status/{answer['request_id']}").json()
    assert status["status"] == "completed"
    assert status["text"] == answer["text"]
    assert status["finish_reason"] == "length"


@pytest.mark.parametrize(
    "body",
    [{}, {"prompt": ""}, {"prompt": 3}, {"prompt": "a", "n": 2}, {"prompt": "a", "top_p": 2}],
)
def test_bad_requests(server, body):
    answer = server.post("/generate", body)
    assert answer.status_code == 400
    assert answer.json().keys() == {"error", "category", "recoverable", "status"}
    assert answer.json()["category"] == "user"


def test_models(server):
    (model,) = server.get("/models").json()["models"]
    assert model["meta"]["n_ctx"] == 4096


def test_tokenize_and_back(server):
    text = "Grüße, 你好 \U0001f642 12"
    ids = server.post("/tokenize", {"content": text}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": ids}).json()["content"] == text
    pieces = server.post("/tokenize", {"content": "Hello", "with_pieces": True}).json()["tokens"]
    assert "".join(p["piece"] for p in pieces) == "Hello"
    assert server.post("/tokenize", {}).status_code == 400
    assert server.post("/detokenize", {"tokens": [10**6]}).status_code == 400


def test_apply_template(server):
    messages = [{"role": "user", "content": "Hi"}]
    prompt = server.post("/apply-template", {"messages": messages}).json()["prompt"]
    assert "Hi" in prompt
    assert prompt.endswith("assistant\n")
    without = {"messages": messages, "add_generation_prompt": False}
    assert not server.post("/apply-template", without).json()["prompt"].endswith("assistant\n")
