"""From chat messages to the text of a prompt, in which only the template opens and closes turns.

The rendered prompt is tokenized with its control tokens parsed, so a message that spells one
(`<|im_end|>`) would act with the template's authority. Such texts are taken out of everything that
the client sent before the template sees it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rocmforge.errors import InvalidRequest
from rocmforge.server.state import ServerState

ROLES: Final = ("system", "developer", "user", "assistant", "tool")
# Names of chat_template_kwargs that would override what the request itself says.
_OURS: Final = frozenset({"messages", "tools", "add_generation_prompt"})


async def render_chat(
    state: ServerState,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
    add_generation_prompt: bool = True,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The prompt for these messages; `variables` are the request's chat_template_kwargs.

    Raises InvalidRequest for an unknown role, which most templates would leave out in silence, and
    what TemplateProcess.render raises.
    """
    check_roles(messages)
    clean, templates = state.model.tokenizer.without_control_texts, state.model.templates
    sent = {"messages": messages, "tools": tools, "variables": variables or {}}
    try:
        # A long conversation takes longer than the event loop may be held up.
        kept = await asyncio.to_thread(cleaned, sent, clean)
    except RecursionError:
        raise InvalidRequest("the messages are nested too deeply", param="messages") from None
    return await templates.render(
        kept["messages"],
        tools=kept["tools"],
        add_generation_prompt=add_generation_prompt,
        **{name: value for name, value in kept["variables"].items() if name not in _OURS},
    )


def check_roles(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raises InvalidRequest naming the first message whose role is none of ROLES."""
    for index, message in enumerate(messages):
        if message.get("role") not in ROLES:
            raise InvalidRequest(
                f"messages[{index}].role must be one of {', '.join(ROLES)}", param="messages"
            )


def cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    """The JSON value with `clean` applied to every text in it, keys included."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {
            clean(key): _arguments(item, clean) if key == "arguments" else cleaned(item, clean)
            for key, item in value.items()
        }
    if isinstance(value, Sequence):
        return [cleaned(item, clean) for item in value]
    return value


def _arguments(value: Any, clean: Callable[[str], str]) -> Any:
    """Tool-call arguments are JSON in a text, and templates are shown what it says: there an
    escape (`\\u003c|im_end|>`) spells a control token as well."""
    kept = cleaned(value, clean)
    if not isinstance(kept, str):
        return kept
    try:
        parsed = json.loads(kept)
    except ValueError:
        return kept
    inner = cleaned(parsed, clean)
    return kept if inner == parsed else json.dumps(inner, ensure_ascii=False)
