"""Asks the transformers library how a chat template is rendered."""

from __future__ import annotations

from chat_conversations import BOS, CONVERSATIONS, EOS, TEMPLATES


def transformers_rendering(template: str, conversation: str) -> str:
    """The prompt that transformers makes."""
    from transformers.utils.chat_template_utils import render_jinja_template

    messages, tools, add_generation_prompt = CONVERSATIONS[conversation]
    rendered, _ = render_jinja_template(
        conversations=[messages],
        tools=tools,
        chat_template=TEMPLATES[template],
        add_generation_prompt=add_generation_prompt,
        bos_token=BOS,
        eos_token=EOS,
    )
    return rendered[0]
