"""What the engine refuses has a proper status, stream or not: clients decide by it whether to try
again."""

from __future__ import annotations

import openai
import pytest

from tests.support.live_server import live_server

CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def small_server():
    with live_server(scheduler_max_queue=1, scheduler_max_batch_size=1) as running:
        yield running.wait_ready()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "Once"})]
)
def test_more_choices_than_fit(small_server, path, body, stream):
    answer = small_server.post(path, body | {"n": 8, "stream": stream})
    assert answer.status_code == 503, answer.text
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["code"] == "batch_size_exceeded"


def test_the_official_client_raises_before_it_reads(small_server):
    url = small_server.url + "/v1"
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(model="", n=8, stream=True, **CHAT)
    assert caught.value.status_code == 503


def test_afterwards_it_streams(small_server):
    answer = small_server.post("/v1/completions", {"prompt": "Once", "stream": True})
    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n")
    assert small_server.get("/health").json()["checks"]["requests"]["active"] == 0
