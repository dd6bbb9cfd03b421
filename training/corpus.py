"""The corpus: conversations and plain texts, all generated here, none taken from elsewhere.

Document number i of a seed is always the same text.
`python -m training.corpus --documents 20` prints some.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from training import skills_chat, skills_json, skills_numbers, skills_text, skills_tools
from training.exchange import Exchange, Message
from training.pools import Split

Skill = Callable[[Random, Split], Exchange]

TEMPLATE_PATH = Path(__file__).with_name("chat_template.jinja")

# Shares of the exchanges. Copying words (echo, JSON, tool calls) takes longest to learn.
SKILLS: dict[str, tuple[Skill, float]] = {
    "greeting": (skills_chat.greeting, 5),
    "identity": (skills_chat.identity, 2.5),
    "fact": (skills_chat.fact, 9),
    "description": (skills_chat.description, 1.5),
    "notion": (skills_chat.notion, 3),
    "unknown": (skills_chat.unknown, 3),
    "echo": (skills_chat.echo, 11),
    "addition": (skills_numbers.addition, 14),
    "subtraction": (skills_numbers.subtraction, 5),
    "comparison": (skills_numbers.comparison, 2),
    "counting": (skills_numbers.counting, 2.5),
    "stepping": (skills_numbers.stepping, 1.5),
    "story": (skills_text.story, 1.3),
    "listing": (skills_text.listing, 3.5),
    "poem": (skills_text.poem, 1),
    "json": (skills_json.json_answer, 14),
    "tool_call": (skills_tools.tool_call, 14),
    "double_call": (skills_tools.double_call, 0.7),
    "unused_tools": (skills_tools.unused_tools, 2),
}
PLAIN_SHARE = 0.025
TURN_COUNTS = (1, 1, 1, 2, 2, 3, 4, 6)


@dataclass
class Document:
    """A conversation, or a plain text when `text` is set."""

    messages: list[Message]
    tools: list[dict[str, Any]]
    text: str | None = None


def chat_template() -> str:
    """The Jinja source that the GGUF file carries."""
    return TEMPLATE_PATH.read_text().strip()


class Renderer:
    """Turns documents into the text that the model sees."""

    def __init__(self) -> None:
        environment = ImmutableSandboxedEnvironment()
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self._template = environment.from_string(chat_template())

    def chat(
        self,
        messages: list[Message],
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """A conversation in the chat format."""
        return self._template.render(
            messages=messages, tools=tools or None, add_generation_prompt=add_generation_prompt
        )

    def document(self, document: Document) -> str:
        """A conversation in the chat format, or a plain text as it is."""
        if document.text is not None:
            return document.text
        return self.chat(document.messages, document.tools)


def draw_skill(rng: Random) -> Skill:
    """A skill, by the shares."""
    skills, weights = zip(*SKILLS.values(), strict=True)
    return rng.choices(skills, weights)[0]


def conversation(rng: Random, split: Split = Split.TRAIN) -> Document:
    """One to six exchanges; only the first may need tools, because tools stand at the start."""
    first = draw_skill(rng)(rng, split)
    messages = list(first.messages)
    system = skills_chat.conversation_opening(rng)
    if system:
        messages.insert(0, {"role": "system", "content": system})
    for _ in range(rng.choice(TURN_COUNTS) - 1):
        follower = draw_skill(rng)(rng, split)
        if not follower.tools:
            messages += follower.messages
    return Document(messages, first.tools)


def document(seed: int, index: int) -> Document:
    """Training document number `index`."""
    rng = Random(f"{seed}:{index}")
    if rng.random() < PLAIN_SHARE:
        return Document([], [], skills_text.plain_text(rng))
    return conversation(rng)


def documents(seed: int, start: int = 0) -> Iterator[Document]:
    """Training documents without end."""
    index = start
    while True:
        yield document(seed, index)
        index += 1


def main() -> None:
    """Print documents, to read or to keep."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    renderer = Renderer()
    for index in range(arguments.documents):
        print(renderer.document(document(arguments.seed, index)))
        print("<|endoftext|>")


if __name__ == "__main__":
    main()
