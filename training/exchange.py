"""What a skill produces: one question with its answer, ready to be put into a conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass
class Exchange:
    """Messages that belong together: a user turn and what follows it.

    `is_exact` says that the answer follows from the question alone, so that the evaluation can
    compare a greedy answer with it. `tools` are needed by this exchange and stand at the start of
    the conversation.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    is_exact: bool = True


def ask(question: str, answer: str, is_exact: bool = True) -> Exchange:
    """One user turn and one assistant turn."""
    return Exchange(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        is_exact=is_exact,
    )
