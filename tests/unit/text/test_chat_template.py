"""Chat templates: the environment, the limits, and the shapes of messages that templates take."""

from __future__ import annotations

import json

import pytest

from rocmforge import clock
from rocmforge.errors import InvalidModelFile, InvalidRequest
from rocmforge.text import chat_template as module
from rocmforge.text.chat_template import ChatTemplate
from rocmforge.text.template_sources import read_templates, template_name

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
USER = {"role": "user", "content": "hi"}


def render(source: str, messages: list | None = None, **variables: object) -> str:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    return template.render([USER] if messages is None else messages, **variables)


def test_chatml():
    assert render(CHATML) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, add_generation_prompt=False) == "<|im_start|>user\nhi<|im_end|>\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("{{ {'b': 'ü<&\\'', 'a': [1, 2.5, none, true]} | tojson }}", None),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        (
            "{% for i in range(4) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "023",
        ),
        ("{% set n = namespace(x=1) %}{% set n.x = n.x + 1 %}{{ n.x }}", "2"),
        ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
        ("a{% generation %}b{{ 1 }}{% endgeneration %}c", "ab1c"),
        ("{{ tools is none }} {{ documents is none }} {{ nothing is defined }}", "True True False"),
        ("{{ nothing }}|{{ messages[0].nothing }}", "|"),
        ("{{ messages[0]['content'].split('i')[0] | upper }}", "H"),
    ],
)
def test_environment(source, expected):
    if expected is None:
        expected = json.dumps({"b": "ü<&'", "a": [1, 2.5, None, True]}, ensure_ascii=False)
    assert render(source) == expected


def test_time_comes_from_the_clock(monkeypatch):
    monkeypatch.setattr(clock, "unix_s", lambda: 86400.0 * 365)
    assert render("{{ strftime_now('%d %b %Y') }}") in ("01 Jan 1971", "31 Dec 1970")


def test_variables_reach_the_template():
    source = "{{ enable_thinking }} {{ tools | length }} {{ messages | length }}"
    assert render(source, tools=[{"type": "function"}], enable_thinking=False) == "False 1 1"
    assert render("{{ tools is none }}", tools=[]) == "True"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ nothing.more }}", "nothing"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{% for i in range(10**12) %}{% endfor %}", "range|Range"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "Recursion"),
        ("{{ strftime_now(3) }}", "TypeError"),
        ("{{ messages | tojson(indent='x', foo=1) }}", "TypeError"),
    ],
)
def test_a_template_that_fails_is_an_invalid_request(source, message):
    with pytest.raises(InvalidRequest, match=message) as caught:
        render(source)
    assert caught.value.param == "messages"


def test_template_errors_carry_its_own_message():
    with pytest.raises(InvalidRequest) as caught:
        render("{{ raise_exception('Only one system message!') }}")
    assert caught.value.message.endswith(": Only one system message!")


@pytest.mark.parametrize(
    "source",
    ["{% for %}", "{{ a", "{% endif %}", "{% nothing %}", "{{" + "(" * 5000, "x" * 1_000_001],
)
def test_bad_source_is_an_invalid_model_file(source):
    with pytest.raises(InvalidModelFile, match="chat template"):
        ChatTemplate(source)


def test_output_is_limited(monkeypatch):
    monkeypatch.setattr(module, "MAX_RENDERED_CHARS", 100)
    with pytest.raises(InvalidRequest, match="more than 100 characters"):
        render("{% for i in range(1000) %}{{ i }}{% endfor %}")


def test_named_templates():
    metadata = {
        "tokenizer.chat_template": "a",
        "tokenizer.chat_template.tool_use": "b",
        "tokenizer.chat_templates": ["tool_use"],
        "general.name": "x",
    }
    templates = read_templates(metadata)
    assert templates == {"default": "a", "tool_use": "b"}
    assert template_name(templates, has_tools=True) == "tool_use"
    assert template_name(templates, has_tools=False) == "default"
    assert template_name({"default": "a"}, has_tools=True) == "default"
    assert template_name({"rag": "a"}, has_tools=False) == "rag"
    with pytest.raises(InvalidRequest, match="only x, y"):
        template_name({"x": "", "y": ""}, has_tools=False)
    with pytest.raises(InvalidRequest, match="no chat template: use /v1/completions"):
        template_name({}, has_tools=False)


def test_hostile_template_metadata():
    with pytest.raises(InvalidModelFile, match=r"tokenizer\.chat_template must be"):
        read_templates({"tokenizer.chat_template": 3})
    with pytest.raises(InvalidModelFile, match=r"tokenizer\.chat_template\.x has"):
        read_templates({"tokenizer.chat_template.x": "y" * 1_000_001})
    with pytest.raises(InvalidModelFile, match="more than 64"):
        read_templates({f"tokenizer.chat_template.{i}": "" for i in range(65)})


# Five ways in which public templates treat content and tool calls.
OBJECT_CALLS = """\
{%- for m in messages %}[{{ m.role }}]{{ m.content or '' }}
{%- for c in m.tool_calls or [] %}<{{ c.function.name }} {{ c.function.arguments | tojson }}>
{%- endfor %}{% endfor %}"""
ITEM_CALLS = """\
{%- for m in messages %}[{{ m.role }}]{{ m.content or '' }}
{%- for c in m.tool_calls or [] %}<{{ c.function.name }}
{%- for k, v in c.function.arguments.items() %} {{ k }}={{ v }}{% endfor %}>
{%- endfor %}{% endfor %}"""
TEXT_CALLS_BESIDE_NULL = """\
{%- for m in messages %}[{{ m.role }}]
{%- if m.content is none %}
{%- for c in m.tool_calls %}{% set f = c.function %}
{{- '<' + f.name + ' ' + f.arguments + '>' }}{% endfor %}
{%- else %}{{ m.content }}{% endif %}{% endfor %}"""
NO_CALLS = "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}"
PARTS = """\
{%- for m in messages %}[{{ m.role }}]
{%- for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"""

CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"city": "Zürich"}'},
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (OBJECT_CALLS, '<f {"city": "Zürich"}>'),
        (ITEM_CALLS, "<f city=Zürich>"),
        (TEXT_CALLS_BESIDE_NULL, '<f {"city": "Zürich"}>'),
        (NO_CALLS, ""),
        (PARTS, ""),
    ],
)
@pytest.mark.parametrize("content", [None, "", []])
def test_null_content_beside_tool_calls(source, expected, content):
    messages = [USER, {"role": "assistant", "content": content, "tool_calls": [CALL]}]
    assert render(source, messages) == f"[user]hi[assistant]{expected}"
    del messages[1]["content"]
    assert render(source, messages) == f"[user]hi[assistant]{expected}"


@pytest.mark.parametrize("source", [OBJECT_CALLS, TEXT_CALLS_BESIDE_NULL, NO_CALLS, PARTS])
def test_parts_become_what_the_template_takes(source):
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]
    assert render(source, [{"role": "user", "content": parts}]) == "[user]a\nb\nc"
    assert render(source, [{"role": "user", "content": None}]) == "[user]"
    assert render(source, [{"role": "user", "content": "text"}]) == "[user]text"


def test_objects_become_text_where_the_template_needs_it():
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    assert render(TEXT_CALLS_BESIDE_NULL, messages) == '[assistant]<f {"x": 1}>'


@pytest.mark.parametrize("arguments", ["{broken", "[1]", '"x"'])
def test_a_models_own_malformed_arguments_do_not_fail(arguments):
    call = {"function": {"name": "f", "arguments": arguments}}
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert render(OBJECT_CALLS, messages).endswith(f"<f {json.dumps(arguments)}>")


def test_empty_arguments_are_an_empty_object():
    for arguments in ("", None, "{}"):
        call = {"function": {"name": "f", "arguments": arguments}}
        messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
        assert render(OBJECT_CALLS, messages).endswith("<f {}>")


def test_empty_tool_calls_are_absent():
    source = "{% for m in messages %}{{ 'tool_calls' in m }}{% endfor %}"
    for calls in ([], None):
        assert (
            render(source, [{"role": "assistant", "content": "x", "tool_calls": calls}]) == "False"
        )


def test_developer_is_system_unless_the_template_knows_it():
    message = {"role": "developer", "content": "x"}
    assert render(NO_CALLS, [message]) == "[system]x"
    assert render(NO_CALLS + "{# developer #}", [message]) == "[developer]x"


def test_messages_are_not_changed():
    message = {"role": "developer", "content": None, "tool_calls": [CALL]}
    before = json.dumps(message)
    render(OBJECT_CALLS, [message])
    assert json.dumps(message) == before


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ("hi", "must be a list"),
        ({"role": "user"}, "must be a list"),
        ([3], r"messages\[0\] must be"),
        ([USER, {"content": "x"}], r"messages\[1\] must be"),
        ([{"role": 3, "content": "x"}], r"messages\[0\] must be"),
        ([{"role": "user", "content": 3}], r"messages\[0\].content"),
        ([{"role": "user", "content": b"x"}], r"messages\[0\].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "'image_url'.*text only"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"content\[0\]"),
        ([{"role": "user", "content": [None]}], r"content\[0\]"),
        ([{"role": "assistant", "tool_calls": "x"}], "tool_calls must be a list"),
        ([{"role": "assistant", "tool_calls": [3]}], r"tool_calls\[0\]"),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], r"tool_calls\[0\]"),
    ],
)
def test_malformed_messages(messages, text):
    with pytest.raises(InvalidRequest, match=text) as caught:
        ChatTemplate(OBJECT_CALLS).render(messages)
    assert caught.value.param == "messages"
