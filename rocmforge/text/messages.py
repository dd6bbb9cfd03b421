"""Chat messages as clients send them, brought into the shape that a chat template can take.

Templates differ in what they accept, and nothing in the file says so; `TemplateTraits` finds out by
rendering small probes. Clients send content as a string, as a list of parts, or as null beside tool
calls, and tool-call arguments as a JSON string, where most templates expect an object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rocmforge.errors import InvalidRequest

Message = dict[str, object]
_PROBE, _KEY = "probe-7f3a", "key-7f3a"
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")


@dataclass(frozen=True)
class TemplateTraits:
    """What a template takes.

    text: content as a string. null_content: null content beside tool calls. object_arguments:
    tool-call arguments as an object rather than as JSON text. developer: the role `developer` by
    name.
    """

    text: bool = True
    null_content: bool = True
    object_arguments: bool = True
    developer: bool = False

    @classmethod
    def probe(cls, source: str, render: Callable[[list[Message]], str | None]) -> TemplateTraits:
        """Find them out; `render` gives None when the template refuses the messages."""
        user: Message = {"role": "user", "content": _PROBE}
        parts: Message = {"role": "user", "content": [{"type": "text", "text": _PROBE}]}
        only_parts = _PROBE not in (render([user]) or "") and _PROBE in (render([parts]) or "")
        if only_parts:
            user = parts

        def call(arguments: object, content: str | None) -> str:
            return render([user, _call(arguments, content)]) or ""

        as_object = [call({_KEY: 1}, content) for content in (None, "")]
        as_json = [call(json.dumps({_KEY: 1}), content) for content in (None, "")]
        # An object in Python's notation is no better than an error.
        takes_object = any(_KEY in text and f"'{_KEY}'" not in text for text in as_object)
        takes_object = takes_object or not any(_KEY in text for text in as_json)
        null, empty = as_object if takes_object else as_json
        return cls(
            text=not only_parts,
            # Some templates fail on null, some print its name; others show the call only beside
            # null.
            null_content=bool(null) and "None" not in null and (_KEY in null or _KEY not in empty),
            object_arguments=takes_object,
            developer="developer" in source,
        )


def _call(arguments: object, content: str | None) -> Message:
    function = {"name": "probe", "arguments": arguments}
    call = {"id": "call_123456", "type": "function", "function": function}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def normalised(messages: Sequence[object], traits: TemplateTraits) -> list[Message]:
    """The messages as the template takes them.

    Raises InvalidRequest (param `messages`) for a message that is not an object with a role, and
    for content other than text.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidRequest("messages must be a list", param="messages")
    return [_normalised(message, index, traits) for index, message in enumerate(messages)]


def _normalised(message: object, index: int, traits: TemplateTraits) -> Message:
    where = f"messages[{index}]"
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidRequest(f"{where} must be an object with a role", param="messages")
    result: Message = dict(message)
    if result["role"] == "developer" and not traits.developer:
        result["role"] = "system"
    calls = result.get("tool_calls")
    if calls:
        result["tool_calls"] = _normalised_calls(calls, where, traits)
    else:
        # An empty or null list is no tool call; templates that ask "is it there?" must not see it.
        result.pop("tool_calls", None)
    content = _text(result.get("content"), where)
    if not content:
        # Templates that want null beside tool calls get it for an empty text as well.
        content = None if calls and traits.null_content else ""
    if content is not None and not traits.text:
        result["content"] = [{"type": "text", "text": content}]
    else:
        result["content"] = content
    return result


def _text(content: object, where: str) -> str | None:
    """Content as one text; parts are joined by line breaks."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InvalidRequest(f"{where}.content must be text or a list of parts", param="messages")
    texts = []
    for number, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        text = part.get("refusal" if kind == "refusal" else "text") if kind in _TEXT_PARTS else None
        if not isinstance(text, str):
            raise InvalidRequest(
                f"{where}.content[{number}] has the type {str(kind)[:40]!r}: "
                "this model takes text only",
                param="messages",
            )
        texts.append(text)
    return "\n".join(texts)


def _normalised_calls(calls: object, where: str, traits: TemplateTraits) -> list[object]:
    if not isinstance(calls, Sequence) or isinstance(calls, (str, bytes)):
        raise InvalidRequest(f"{where}.tool_calls must be a list", param="messages")
    result: list[object] = []
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequest(
                f"{where}.tool_calls[{number}] must be an object with function.name",
                param="messages",
            )
        arguments = _arguments(function.get("arguments"), traits)
        result.append({**call, "function": {**function, "arguments": arguments}})
    return result


def _arguments(arguments: object, traits: TemplateTraits) -> object:
    if isinstance(arguments, str) and traits.object_arguments:
        try:
            parsed = json.loads(arguments or "{}")
        except ValueError:
            # A model's own malformed call, sent back by the client: shown as it was written.
            return arguments
        return parsed if isinstance(parsed, dict) else arguments
    if arguments is None:
        return {} if traits.object_arguments else "{}"
    if not isinstance(arguments, str) and not traits.object_arguments:
        return json.dumps(arguments, ensure_ascii=False)
    return arguments
