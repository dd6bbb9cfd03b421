"""The sources of a model file's chat templates, and which of them serves a request.

Apart from chat_template.py because the server process, which never renders, needs no Jinja.
"""

from __future__ import annotations

from collections.abc import Mapping

from rocmforge.errors import InvalidModelFile, InvalidRequest

TEMPLATE_KEY = "tokenizer.chat_template"
MAX_SOURCE_CHARS = 1_000_000
MAX_NAMED_TEMPLATES = 64
DEFAULT_NAME = "default"
TOOLS_NAME = "tool_use"
NO_TEMPLATE = "this model has no chat template: use /v1/completions or pass --chat-template"


def read_templates(metadata: Mapping[str, object]) -> dict[str, str]:
    """The chat templates of a model file by name; `default` is `tokenizer.chat_template` itself.

    Raises InvalidModelFile naming the key when one is not text or longer than MAX_SOURCE_CHARS.
    """
    templates: dict[str, str] = {}
    for key in metadata:
        if key != TEMPLATE_KEY and not key.startswith(TEMPLATE_KEY + "."):
            continue
        source = metadata[key]
        if not isinstance(source, str):
            raise InvalidModelFile(f"{key} must be a string")
        if len(source) > MAX_SOURCE_CHARS:
            raise InvalidModelFile(
                f"{key} has {len(source)} characters; at most {MAX_SOURCE_CHARS} are allowed"
            )
        if len(templates) == MAX_NAMED_TEMPLATES:
            raise InvalidModelFile(
                f"the file has more than {MAX_NAMED_TEMPLATES} chat templates ({TEMPLATE_KEY}.*)"
            )
        templates[key[len(TEMPLATE_KEY) + 1 :] or DEFAULT_NAME] = source
    return templates


def template_name(templates: Mapping[str, object], *, has_tools: bool) -> str:
    """Which template serves a request. Raises InvalidRequest when there is none."""
    if has_tools and TOOLS_NAME in templates:
        return TOOLS_NAME
    if DEFAULT_NAME in templates:
        return DEFAULT_NAME
    if len(templates) == 1:
        return next(iter(templates))
    if not templates:
        raise InvalidRequest(NO_TEMPLATE, param="messages")
    raise InvalidRequest(
        f"this model has no default chat template, only {', '.join(sorted(templates))[:200]}: "
        "pass --chat-template",
        param="messages",
    )
