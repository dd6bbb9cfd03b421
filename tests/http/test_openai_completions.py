"""/v1/completions through the official client."""

from __future__ import annotations

import openai
import pytest

PROMPT = "1, 2, 3, 4, 5,"


def complete(client, prompt=PROMPT, **options):
    options = {"model": "rocmforge-tiny", "temperature": 0, "max_tokens": 12} | options
    return client.completions.create(prompt=prompt, **options)


def test_text(client):
    answer = complete(client)
    assert answer.object == "text_completion"
    assert answer.choices[0].text.startswith(" 6, 7")
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12


def test_the_default_length_is_sixteen(client):
    answer = client.completions.create(model="", prompt=PROMPT, temperature=0)
    assert answer.usage.completion_tokens <= 16


def test_token_ids_and_text_are_the_same_prompt(client, server):
    ids = server.post("/tokenize", {"content": PROMPT}).json()["tokens"]
    assert complete(client, ids).choices[0].text == complete(client).choices[0].text


def test_several_prompts(client):
    prompts = [PROMPT, "Once upon a time", "Hello"]
    alone = [complete(client, p).choices[0].text for p in prompts]
    together = complete(client, prompts)
    assert [c.index for c in together.choices] == [0, 1, 2]
    assert [c.text for c in together.choices] == alone
    streamed = ["", "", ""]
    for chunk in complete(client, prompts, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == alone
    pairs = complete(client, prompts[:2], n=2, temperature=1, seed=3)
    assert [c.index for c in pairs.choices] == [0, 1, 2, 3]


def test_logprobs_and_offsets(client):
    choice = complete(client, logprobs=2).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    offsets = [sum(map(len, logprobs.tokens[:i])) for i in range(len(logprobs.tokens))]
    assert logprobs.text_offset == offsets
    for token, logprob, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert len(top) == 2
        assert top[token] == logprob == max(top.values())


@pytest.mark.parametrize("prompt", ["", [], [10_000], [-1], [[1], []], ["a", 3], {"a": 1}, None])
def test_impossible_prompts(client, prompt):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, prompt)
    assert caught.value.param == "prompt"


def test_too_many_answers(client):
    with pytest.raises(openai.BadRequestError, match="more than 32"):
        complete(client, ["a"] * 12, n=3)
