"""Chat templates: the Jinja programs in model files that turn messages into a prompt.

The environment is the one that such templates are written for (the `transformers` library's):
sandboxed and immutable, `trim_blocks` and `lstrip_blocks`, `break` and `continue`, `{% generation
%}`, `raise_exception`, `strftime_now`, and a `tojson` that escapes nothing. A sandbox does not
bound time or memory: servers render in a helper process (template_process.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rocmforge import clock
from rocmforge.errors import InvalidModelFile, InvalidRequest, RocmForgeError
from rocmforge.text.messages import TemplateTraits, normalised
from rocmforge.text.template_sources import MAX_SOURCE_CHARS

MAX_RENDERED_CHARS = 10_000_000


class ChatTemplate:
    """One compiled template.

    bos_token, eos_token: texts that templates print around turns. Raises InvalidModelFile when the
    source is too long or not a Jinja template.
    """

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "") -> None:
        if len(source) > MAX_SOURCE_CHARS:
            raise InvalidModelFile(
                f"the chat template has {len(source)} characters; at most {MAX_SOURCE_CHARS}"
            )
        self._source = source
        self._variables = {"bos_token": bos_token, "eos_token": eos_token}
        self._traits: TemplateTraits | None = None
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InvalidModelFile(
                f"the chat template is not valid Jinja: {error.message} (line {error.lineno})"
            ) from None
        except (RecursionError, SyntaxError, ValueError) as error:
            # Jinja compiles to Python, whose own limits (nesting, digits of a number) a template
            # can hit.
            raise InvalidModelFile(f"the chat template cannot be compiled: {error}") from None

    def render(
        self,
        /,
        messages: Sequence[object],
        *,
        tools: Sequence[object] | None = None,
        add_generation_prompt: bool = True,
        **variables: object,
    ) -> str:
        """The prompt for these messages.

        tools: as in the OpenAI API, None for none. variables: anything else that the template knows
        (`enable_thinking`, …). Raises InvalidRequest with the template's own message when it
        refuses.
        """
        if self._traits is None:
            self._traits = TemplateTraits.probe(self._source, self._probe)
        return self._render(
            {
                "documents": None,
                **variables,
                "messages": normalised(messages, self._traits),
                "tools": list(tools) if tools else None,
                "add_generation_prompt": add_generation_prompt,
            }
        )

    def _probe(self, messages: list[dict[str, object]]) -> str | None:
        try:
            return self._render({"messages": messages, "tools": None, "documents": None})
        except InvalidRequest:
            return None

    def _render(self, variables: Mapping[str, object]) -> str:
        chunks: list[str] = []
        n_chars = 0
        try:
            for chunk in self._template.generate({**self._variables, **variables}):
                n_chars += len(chunk)
                if n_chars > MAX_RENDERED_CHARS:
                    raise InvalidRequest(
                        f"the chat template makes more than {MAX_RENDERED_CHARS} characters",
                        param="messages",
                    )
                chunks.append(chunk)
        except RocmForgeError:
            raise
        except jinja2.TemplateError as error:
            raise _refused(error.message or type(error).__name__) from None
        except Exception as error:  # noqa: BLE001
            # A template is a program: its operators and filters can raise anything.
            raise _refused(f"{type(error).__name__}: {error}") from None
        return "".join(chunks)


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(
        f"the model's chat template refused the messages: {message[:1000]}", param="messages"
    )


class _GenerationTag(Extension):
    """`{% generation %} … {% endgeneration %}` marks the assistant's text for training; here it
    is plain.
    """

    tags = {"generation"}  # noqa: RUF012  # the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body in place of the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.fromtimestamp(clock.unix_s()).strftime(form)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
    )
    environment.filters["tojson"] = _tojson
    functions: dict[str, Callable[..., Any]] = {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    environment.globals.update(functions)
    return environment
