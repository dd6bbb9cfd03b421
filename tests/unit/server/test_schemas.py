from __future__ import annotations

import pytest

from rocmforge.errors import InvalidRequest, InvalidTemperature
from rocmforge.server.schemas import ChatBody, CompletionBody, GenerateBody, TokenizeBody, parse

MESSAGES = [{"role": "user", "content": "x"}]


def chat(**fields):
    return parse(ChatBody, {"messages": MESSAGES} | fields)


def test_what_is_not_given_is_the_default():
    params = chat().params()
    assert (params.temperature, params.top_p, params.top_k, params.n) == (1.0, 1.0, 0, 1)
    assert params.max_tokens is None
    assert params.logprobs is None
    assert parse(CompletionBody, {"prompt": "x"}).params().max_tokens == 16
    native = parse(GenerateBody, {"prompt": "x"}).params()
    assert (native.max_tokens, native.temperature, native.top_k, native.top_p) == (
        100,
        1.0,
        50,
        0.9,
    )


def test_null_is_the_default_too():
    nulls = {"temperature": None, "top_p": None, "n": None, "stop": None, "seed": None}
    assert chat(**nulls).params() == chat().params()


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"max_completion_tokens": 5, "max_tokens": 9}, "max_tokens", 5),
        ({"repeat_penalty": 1.2}, "repetition_penalty", 1.2),
        ({"top_k": -1}, "top_k", 0),
        ({"stop": "a"}, "stop", ("a",)),
        ({"stop": ["a", ""]}, "stop", ("a",)),
        ({"logit_bias": {"5": -3}}, "logit_bias", {5: -3.0}),
        ({"logprobs": True}, "logprobs", 0),
        ({"logprobs": True, "top_logprobs": 4}, "logprobs", 4),
        ({"logprobs": False}, "logprobs", None),
        ({"stop_token_ids": [1, 2]}, "stop_token_ids", (1, 2)),
        ({"max_tokens": 7.0}, "max_tokens", 7),
    ],
    ids=str,
)
def test_names_of_other_servers(fields, name, value):
    assert getattr(chat(**fields).params(), name) == value


def test_errors_name_the_field():
    for fields, param in (
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stop": {"a": 1}}, "stop"),
        ({"stream_options": 3}, "stream_options"),
        ({"messages": "hi"}, "messages"),
        ({"top_logprobs": 3}, "top_logprobs"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            chat(**fields).params()
        assert caught.value.param == param
    with pytest.raises(InvalidTemperature):
        chat(temperature=1000).params()


def test_errors_do_not_repeat_what_was_sent():
    with pytest.raises(InvalidRequest) as caught:
        parse(CompletionBody, {"prompt": {"secret": "words"}})
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        ([1, 2], [[1, 2]]),
        (["a", "b"], ["a", "b"]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_prompts_of_every_kind(prompt, prompts):
    assert parse(CompletionBody, {"prompt": prompt}).prompts() == prompts


@pytest.mark.parametrize("prompt", [[], [True], [1.5], ["a", 1], 7, None])
def test_prompts_that_are_none(prompt):
    with pytest.raises(InvalidRequest):
        parse(CompletionBody, {"prompt": prompt}).prompts()


def test_tokenize_takes_both_names():
    assert parse(TokenizeBody, {"content": "a"}).text() == "a"
    assert parse(TokenizeBody, {"prompt": ""}).text() == ""
    with pytest.raises(InvalidRequest):
        parse(TokenizeBody, {}).text()
