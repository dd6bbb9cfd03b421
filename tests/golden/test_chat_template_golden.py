"""Our chat templates against the transformers library: goldens, and live (oracle)."""

from __future__ import annotations

import json

import pytest
from chat_conversations import BOS, CONVERSATIONS, EOS, GOLDEN, TEMPLATES, cases

from rocmforge.text.chat_template import ChatTemplate


def ours(template: str, conversation: str) -> str:
    messages, tools, add_generation_prompt = CONVERSATIONS[conversation]
    chat_template = ChatTemplate(TEMPLATES[template], bos_token=BOS, eos_token=EOS)
    return chat_template.render(messages, tools=tools, add_generation_prompt=add_generation_prompt)


@pytest.mark.parametrize(("template", "conversation"), cases())
def test_rendering(template: str, conversation: str):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["rendered"]
    assert ours(template, conversation) == golden[f"{template} / {conversation}"]


@pytest.mark.oracle
@pytest.mark.parametrize(("template", "conversation"), cases())
def test_rendering_live(template: str, conversation: str):
    from chat_oracle import transformers_rendering

    assert ours(template, conversation) == transformers_rendering(template, conversation)
