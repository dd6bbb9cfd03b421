"""The corpus is reproducible, keeps its held-out side out, and is in the model's chat format."""

from __future__ import annotations

import json
from random import Random
from typing import ClassVar

import pytest

from training import corpus, pools, skills_json, skills_numbers, skills_tools, world
from training.pools import Split

DOCUMENTS = 400


def rendered(seed: int) -> list[str]:
    renderer = corpus.Renderer()
    return [renderer.document(corpus.document(seed, index)) for index in range(DOCUMENTS)]


def test_a_document_depends_on_seed_and_number_only() -> None:
    assert rendered(3) == rendered(3)
    assert rendered(3) != rendered(4)
    later = corpus.documents(3, start=7)
    assert next(later) == corpus.document(3, 7)


def test_held_out_sums_are_never_trained() -> None:
    for text in rendered(5):
        for line in text.splitlines():
            parts = line.removesuffix("<|im_end|>").split()
            if len(parts) == 5 and parts[1] == "+" and parts[3] == "=":
                a, b = int(parts[0]), int(parts[2])
                assert int(parts[4]) == a + b
                assert skills_numbers.pair_split(a, b) is Split.TRAIN


def test_pairs_are_held_out_in_both_orders() -> None:
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    held_out = [p for p in pairs if skills_numbers.pair_split(*p) is Split.HELD_OUT]
    assert 0.08 < len(held_out) / len(pairs) < 0.18
    for a, b in held_out:
        assert skills_numbers.pair_split(b, a) is Split.HELD_OUT


def test_held_out_phrasings_are_other_phrasings() -> None:
    for relation in world.RELATIONS:
        assert not set(relation.questions) & set(relation.held_out_questions)


@pytest.mark.parametrize("split", list(Split))
def test_names_and_words_belong_to_their_split(split: Split) -> None:
    rng = Random(1)
    for _ in range(200):
        assert pools.belongs(pools.person_name(rng, split), split)
        assert pools.belongs(pools.phrase(rng, split), split)


def test_json_answers_are_json() -> None:
    rng = Random(2)
    for _ in range(300):
        answer = skills_json.json_answer(rng, Split.TRAIN).messages[-1]["content"]
        assert isinstance(json.loads(answer), dict | list)


def test_tool_calls_follow_the_offered_schema() -> None:
    rng = Random(3)
    for _ in range(300):
        exchange = skills_tools.tool_call(rng, Split.TRAIN)
        call = exchange.messages[1]["tool_calls"][0]["function"]
        schemas = {tool["function"]["name"]: tool["function"] for tool in exchange.tools}
        properties = schemas[call["name"]]["parameters"]["properties"]
        assert list(properties) == list(call["arguments"])
        for name, value in call["arguments"].items():
            expected = int if properties[name]["type"] == "integer" else str
            assert type(value) is expected
            assert value in properties[name].get("enum", [value])


class TestChatTemplate:
    """What the template makes of the shapes that clients send."""

    renderer = corpus.Renderer()
    tool: ClassVar = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object"}},
    }

    def test_plain_turn(self) -> None:
        text = self.renderer.chat([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
        assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"

    def test_system_prompt_and_tools_share_the_system_turn(self) -> None:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        text = self.renderer.chat(messages, [self.tool])
        schema = '{"name": "f", "parameters": {"type": "object"}}'
        assert text == (
            f"<|im_start|>system\nBe brief.\n<tools>\n{schema}\n</tools><|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n"
        )

    @pytest.mark.parametrize("arguments", [{"a": 1}, '{"a": 1}'])
    def test_tool_calls_beside_null_content(self, arguments: object) -> None:
        call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": arguments}}
        messages = [
            {"role": "user", "content": "Go"},
            {"role": "assistant", "content": None, "tool_calls": [call, call]},
            {"role": "tool", "tool_call_id": "x", "content": "7"},
        ]
        block = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
        assert self.renderer.chat(messages) == (
            "<|im_start|>user\nGo<|im_end|>\n"
            f"<|im_start|>assistant\n{block}\n{block}<|im_end|>\n"
            "<|im_start|>tool\n7<|im_end|>\n"
        )

    def test_content_parts_are_joined(self) -> None:
        parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
        assert "user\nHello<|im_end|>" in self.renderer.chat([{"role": "user", "content": parts}])
