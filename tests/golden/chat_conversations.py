"""Templates and conversations whose renderings are compared with the `transformers` library's.

The templates are ours; each uses the features of one style that public templates are written in.
"""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parent / "chat_template.json"
BOS, EOS = "<s>", "</s>"

TEMPLATES = {
    "one line": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] | trim + eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "blocks": """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = 'You are kind.' %}
    {%- set rest = messages %}
{%- endif %}
{% for m in rest %}
    {# a comment #}
    {% if loop.first %}
[SYS]{{ system }}[/SYS]
    {% endif %}
    {% if m.role == 'user' -%}
[{{ loop.index0 }}] {{ m.content }}
    {%- else %}
 {{ m.content or '(nothing)' }}{{ eos_token }}
    {% endif %}
{% endfor %}
""",
    "tools": """\
{%- macro call(c) -%}
<call>{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}</call>
{%- endmacro -%}
{%- set ns = namespace(n=0, seen=[]) -%}
{%- if tools is not none %}
<tools>
    {%- for t in tools %}
        {{- '\\n' }}{{ t | tojson(indent=2) }}
    {%- endfor %}
</tools>
{% endif -%}
{%- for m in messages %}
    {%- if m.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.n = ns.n + 1 %}
    {{- m.role | upper ~ ' ' ~ ns.n ~ ': ' }}
    {%- if m.content is not none %}{{ m.content }}{% endif %}
    {%- if m.tool_calls is defined %}
        {%- for c in m.tool_calls %}{{ call(c) }}{% endfor %}
    {%- endif %}
    {%- if m.role == 'tool' %} ({{ m.tool_call_id }}){% endif %}
    {{- '\\n' }}
    {%- if ns.n == 6 %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}""",
    "training": """\
{% for m in messages %}
{% if m.role == 'assistant' %}
A: {% generation %}{{ m.content or '' }}{% endgeneration %}
{% else %}
Q: {{ m.content }}
{% endif %}
{% endfor %}
""",
}

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The <weather> of a city & its 'mood'",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 3, "x": [1.5, None]}},
}
CONVERSATIONS = {
    "short": ([{"role": "user", "content": "Hi"}], None, True),
    "turns": (
        [
            {"role": "system", "content": 'Be <brief> & "kind".\n'},
            {"role": "user", "content": "  What is 1 < 2?  "},
            {"role": "assistant", "content": "True, 'naturally'."},
            {"role": "user", "content": "日本語で 👍\n\n"},
        ],
        None,
        False,
    ),
    "calls": (
        [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
            {"role": "tool", "content": '{"t": 3}', "tool_call_id": "call_1"},
            {"role": "assistant", "content": "3 °C"},
        ],
        [TOOL],
        True,
    ),
}


def cases() -> list[tuple[str, str]]:
    """(template, conversation) pairs; only one template knows calls."""
    return [
        (template, conversation)
        for template in TEMPLATES
        for conversation in CONVERSATIONS
        if conversation != "calls" or template == "tools"
    ]
