"""The official client against the real server and the embedded model."""

from __future__ import annotations

import openai
import pytest

from tests.support.live_server import eventually

ASK = [{"role": "user", "content": "What is 12 + 30?"}]
TELL = [{"role": "user", "content": "Count from 1 to 40."}]


def ask(client, messages=ASK, **options):
    options = {"model": "rocmforge-tiny", "temperature": 0, "max_tokens": 40} | options
    return client.chat.completions.create(messages=messages, **options)


def test_answer(client):
    answer = ask(client)
    choice = answer.choices[0]
    assert answer.object == "chat.completion"
    assert "42" in choice.message.content
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0


def test_a_second_time_the_prompt_is_cached(client):
    long = [{"role": "user", "content": "Say hello world. " * 20}]
    ask(client, long, max_tokens=2)
    again = ask(client, long, max_tokens=2)
    assert again.usage.prompt_tokens_details.cached_tokens >= 16


def test_stream_says_the_same(client):
    whole = ask(client, TELL).choices[0]
    chunks = list(ask(client, TELL, stream=True, stream_options={"include_usage": True}))
    *parts, last = chunks
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
    assert parts[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in parts)
    assert text == whole.message.content
    reasons = [chunk.choices[0].finish_reason for chunk in parts]
    assert reasons[:-1] == [None] * (len(parts) - 1)
    assert reasons[-1] == whole.finish_reason
    assert last.choices == []
    assert last.usage.completion_tokens == 40
    assert all(chunk.usage is None for chunk in parts)


def test_the_length_limit_is_told(client):
    assert ask(client, TELL, max_tokens=5).choices[0].finish_reason == "length"
    assert ask(client, TELL, max_completion_tokens=3).usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_end_the_text_and_are_not_in_it(client, stream):
    answer = ask(client, TELL, stop=["5,", "never"], max_tokens=60, stream=stream)
    if stream:
        chunks = list(answer)
        text = "".join(c.choices[0].delta.content or "" for c in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert text == "1, 2, 3, 4, "
    assert reason == "stop"


def test_seeds_and_choices(client):
    options = {"temperature": 1.5, "n": 3, "seed": 7, "max_tokens": 12}
    first = [choice.message.content for choice in ask(client, **options).choices]
    again = [choice.message.content for choice in ask(client, **options).choices]
    assert first == again
    assert [choice.index for choice in ask(client, **options).choices] == [0, 1, 2]
    streamed = {0: "", 1: "", 2: ""}
    for chunk in ask(client, stream=True, **options):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert list(streamed.values()) == first


def test_logprobs(client):
    answer = ask(client, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert "".join(token.token for token in content) == answer.choices[0].message.content
    for token in content:
        assert token.logprob <= 0
        assert bytes(token.bytes).decode() == token.token
        assert len(token.top_logprobs) == 3
        # Greedy: the token is the likeliest one.
        assert token.top_logprobs[0].token == token.token
        assert token.top_logprobs[0].logprob == token.logprob
    streamed = [
        token
        for chunk in ask(client, logprobs=True, top_logprobs=3, stream=True)
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert streamed == content


def test_messages_of_every_shape(client):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "3"},
        {"role": "user", "content": "Thank you!"},
    ]  # fmt: skip
    assert ask(client, messages).choices[0].message.content


def test_logit_bias_bans_and_forces(client):
    banned = ask(client, logit_bias={str(i): -100 for i in range(15, 25)})
    assert not any(digit in banned.choices[0].message.content for digit in "0123456789")


def test_extra_sampling_fields_of_other_servers(client):
    extra = {
        "top_k": 1,
        "min_p": 0.1,
        "repetition_penalty": 1.0,
        "min_tokens": 20,
        "ignore_eos": True,
    }
    answer = ask(client, temperature=1, max_tokens=30, extra_body=extra)
    assert answer.usage.completion_tokens == 30


class TestErrors:
    def test_unknown_model(self, client):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(client, model="gpt-4o")
        assert caught.value.code == "model_not_found"

    def test_context_length(self, client):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, [{"role": "user", "content": "word " * 6000}])
        assert caught.value.code == "context_length_exceeded"
        assert "context_length_exceeded" in caught.value.message
        assert caught.value.body["n_ctx"] == 4096
        assert caught.value.body["n_prompt_tokens"] > 4096

    def test_a_hopeless_prompt_is_not_even_tokenized(self, client):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, [{"role": "user", "content": "word " * 1_000_000}])
        assert "at least" in caught.value.message

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("temperature", -1),
            ("temperature", "hot"),
            ("top_p", 0),
            ("n", 0),
            ("max_tokens", 0),
            ("presence_penalty", 3),
            ("top_logprobs", 2),
            ("logit_bias", {"a": 1}),
            ("stop", ["x"] * 17),
            ("seed", "s"),
        ],
    )
    def test_bad_values_name_their_field(self, client, field, value):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, extra_body={field: value})
        assert caught.value.param == field

    def test_no_messages(self, client):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, [])
        assert caught.value.param == "messages"

    def test_images_are_refused(self, client):
        part = {"type": "image_url", "image_url": {"url": "data:"}}
        with pytest.raises(openai.BadRequestError, match="text only"):
            ask(client, [{"role": "user", "content": [part]}])


def test_closing_a_stream_cancels_its_request(client, server):
    before = server.metric("rocmforge_requests_cancelled_total")
    stream = ask(client, max_tokens=3000, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    eventually(lambda: server.metric("rocmforge_requests_cancelled_total") == before + 1)
    eventually(lambda: server.get("/health").json()["checks"]["requests"]["active"] == 0)


def test_models(client):
    (model,) = client.models.list().data
    assert model.id == "rocmforge-tiny"
    assert client.models.retrieve("embedded").id == model.id
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
