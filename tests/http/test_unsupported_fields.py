"""Every field that clients bring and that is not built yet is refused by name; what asks for
nothing passes."""

from __future__ import annotations

import pytest

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "description": None, "parameters": {}}}
SCHEMA = {"name": "s", "schema": {"type": "object"}}

# field → a value that asks for something, and one that does not.
SAMPLERS = {
    "typical_p": (0.5, 1.0),
    "top_n_sigma": (1.5, -1),
    "xtc_probability": (0.5, 0),
    "xtc_threshold": (0.2, 0.1),
    "dynatemp_range": (0.5, 0),
    "dynatemp_exponent": (2.0, 1),
    "dry_multiplier": (0.8, 0),
    "dry_base": (2.0, 1.75),
    "dry_allowed_length": (3, 2),
    "dry_penalty_last_n": (64, -1),
    "dry_sequence_breakers": (["x"], ["\n", ":", '"', "*"]),
    "mirostat": (2, 0),
    "mirostat_tau": (3.0, 5.0),
    "mirostat_eta": (0.2, 0.1),
    "repeat_last_n": (64, -1),
    "samplers": (["top_k"], []),
    "grammar": ('root ::= "x"', ""),
    "json_schema": ({"type": "object"}, None),
    "n_probs": (3, 0),
    "cache_prompt": (False, True),
    "bad_words": (["x"], []),
    "allowed_token_ids": ([1, 2], []),
    "prompt_logprobs": (1, None),
    "guided_choice": (["a", "b"], []),
    "guided_regex": ("a+", ""),
    "guided_json": ({"type": "object"}, None),
    "guided_grammar": ("x", ""),
    "structured_outputs": ({"regex": "a"}, None),
}
CHAT = SAMPLERS | {
    "tools": ([TOOL], []),
    "tool_choice": ("required", "auto"),
    "functions": ([{"name": "f"}], []),
    "function_call": ({"name": "f"}, "none"),
    "response_format": ({"type": "json_object"}, {"type": "text"}),
    "reasoning_effort": ("high", None),
    "modalities": (["text", "audio"], ["text"]),
    "audio": ({"voice": "v"}, None),
    "prediction": ({"type": "content"}, None),
    "web_search_options": ({}, None),
}
COMPLETIONS = SAMPLERS | {
    "suffix": ("end", ""),
    "echo": (True, False),
    "best_of": (3, 1),
}
CASES = [
    *(("/v1/chat/completions", name, *values) for name, values in CHAT.items()),
    *(("/v1/completions", name, *values) for name, values in COMPLETIONS.items()),
    *(("/generate", name, *values) for name, values in SAMPLERS.items()),
]


def body(route: str) -> dict:
    start = {"messages": MESSAGES} if "chat" in route else {"prompt": "Hello"}
    return start | {"max_tokens": 1}


@pytest.mark.parametrize(("route", "field", "asks", "neutral"), CASES)
def test_field(server, route, field, asks, neutral):
    refused = server.post(route, body(route) | {field: asks})
    assert refused.status_code == 400, refused.text
    message = refused.json()["error"]
    if route.startswith("/v1/"):
        assert message["code"] == "unsupported_parameter"
        assert message["param"] == field
        message = message["message"]
    assert message.startswith(f"{field} is not supported")
    assert server.post(route, body(route) | {field: neutral}).status_code == 200
    assert server.post(route, body(route) | {field: None}).status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    ],
    ids=str,
)
def test_other_values_that_ask(server, value):
    route = "/v1/chat/completions"
    (field,) = value
    answer = server.post(route, body(route) | value)
    assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize(
    "field",
    [
        {"user": "me"},
        {"metadata": {"a": "b"}},
        {"prompt_cache_key": "k"},
        {"parallel_tool_calls": True},
        {"store": False},
        {"something_nobody_knows": {"deep": [1]}},
    ],
    ids=str,
)
def test_fields_that_change_no_answer_are_accepted(server, field):
    route = "/v1/chat/completions"
    assert server.post(route, body(route) | field).status_code == 200
