"""Whatever a client sends, it gets an answer that is JSON or events, and never a 500."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.test_unsupported_fields import CHAT, COMPLETIONS
from tests.support.live_server import live_server

JSON_TYPE = {"content-type": "application/json"}
ROUTES = [
    "/v1/chat/completions",
    "/v1/completions",
    "/generate",
    "/generate/stream",
    "/tokenize",
    "/detokenize",
    "/apply-template",
]
FIELDS = [
    *("messages", "prompt", "content", "tokens", "model", "max_tokens", "temperature", "top_k"),
    *("top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "n"),
    *("stop", "stop_token_ids", "min_tokens", "ignore_eos", "logprobs", "top_logprobs"),
    *("logit_bias", "stream", "stream_options", "chat_template_kwargs", "tools", "with_pieces"),
    *sorted(CHAT.keys() | COMPLETIONS.keys()),
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["user", "assistant", "tool", "system", "<|im_end|>", "\x00", "\ud83d"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "developer"]) | JSON,
        "content": st.text(max_size=30) | JSON,
        "tool_calls": JSON,
        "name": JSON,
    },
)
BODY = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6)
SANE = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, max_size=3), "prompt": st.text(max_size=20) | JSON}
)


@pytest.fixture(scope="module")
def server():
    with live_server() as running:
        yield running.wait_ready()


def answered(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 400, 404, 413, 415), answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert "event: error" not in answer.text
        assert '"error"' not in answer.text
    else:
        assert isinstance(answer.json(), dict)


@settings(max_examples=400, deadline=None)
@given(route=st.sampled_from(ROUTES), body=BODY, sane=SANE, limit=st.integers(1, 4))
def test_any_fields(server, route, body, sane, limit):
    content = sane | body
    if not isinstance(content.get("max_tokens"), int) or content["max_tokens"] > 8:
        content["max_tokens"] = limit
    with httpx.Client(base_url=server.url, timeout=30) as client:
        answered(client.post(route, content=json.dumps(content), headers=JSON_TYPE))


@settings(max_examples=200, deadline=None)
@given(route=st.sampled_from(ROUTES), content=st.binary(max_size=200))
def test_any_bytes(server, route, content):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        answered(client.post(route, content=content, headers=JSON_TYPE))


def test_afterwards_it_serves_as_before(server):
    assert server.get("/health").json()["status"] == "healthy"
    assert server.props()["engine"]["restarts"] == 0
    assert not server.events("request_crashed")
