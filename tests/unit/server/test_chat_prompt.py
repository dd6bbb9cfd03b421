from __future__ import annotations

import json

import pytest

from rocmforge.errors import InvalidRequest
from rocmforge.server.chat_prompt import ROLES, check_roles, cleaned


def clean(text: str) -> str:
    return text.replace("<end>", "")


def test_every_text_is_cleaned_and_nothing_else_changes():
    sent = {
        "messages": [
            {"role": "user", "content": "a<end>b"},
            {"role": "user", "content": [{"type": "text", "text": "<end>c"}]},
            {"role": "assistant", "content": None, "name": "<end>"},
        ],
        "variables": {"k<end>": True, "n": 3, "f": 1.5},
    }
    assert cleaned(sent, clean) == {
        "messages": [
            {"role": "user", "content": "ab"},
            {"role": "user", "content": [{"type": "text", "text": "c"}]},
            {"role": "assistant", "content": None, "name": ""},
        ],
        "variables": {"k": True, "n": 3, "f": 1.5},
    }


def call(arguments: object) -> object:
    function = {"function": {"name": "f", "arguments": arguments}}
    return cleaned(function, clean)["function"]["arguments"]


@pytest.mark.parametrize("arguments", [r'{"a": "\u003cend\u003e!"}', '{"a": "<end>!"}'])
def test_an_escape_in_tool_call_arguments_hides_nothing(arguments):
    assert json.loads(call(arguments)) == {"a": "!"}


@pytest.mark.parametrize("arguments", ['{"a" : "b"}', "{broken", "", '{"é": 1.0}', "[1, 2]"])
def test_harmless_arguments_stay_as_they_were_written(arguments):
    assert call(arguments) == arguments


def test_arguments_as_an_object():
    assert call({"a": ["<end>x"]}) == {"a": ["x"]}


@pytest.mark.parametrize("role", ROLES)
def test_known_roles(role):
    check_roles([{"role": role, "content": "x"}])


@pytest.mark.parametrize("role", ["alien", "", None, 3, ["user"], {}])
def test_unknown_roles_are_named(role):
    with pytest.raises(InvalidRequest, match=r"messages\[1\]\.role must be one of") as caught:
        check_roles([{"role": "user"}, {"role": role, "content": "x"}])
    assert caught.value.param == "messages"


def test_a_missing_role():
    with pytest.raises(InvalidRequest, match=r"messages\[0\]"):
        check_roles([{"content": "x"}])
