"""OpenAI's chunks as bytes. Nearly all chunks of a stream differ in nothing but their text, so what
is around it is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rocmforge.request import Usage
from rocmforge.server.generation import ChoiceDelta
from rocmforge.server.openai_format import AnswerFormat, usage_fields
from rocmforge.server.stream import DONE, event

# Stands for the text while the bytes around it are made; no name of a model or id contains it.
_PLACE: Final = "\0text\0"
_ENCODER: Final = msgspec.json.Encoder()


class ChunkWriter:
    """The events of one stream. with_usage: it ends with a chunk of token counts."""

    def __init__(self, shape: AnswerFormat, *, with_usage: bool) -> None:
        self._shape = shape
        self._with_usage = with_usage
        self._more: dict[str, Any] = {"usage": None} if with_usage else {}
        # (generation, choice) → what is before its text, and behind it.
        self._around: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    def openings(self, n_generations: int) -> bytes:
        """What comes before any text."""
        chunks = self._shape.openings(n_generations)
        return b"".join([event(chunk | self._more) for chunk in chunks])

    def deltas(self, generation: int, deltas: Sequence[ChoiceDelta]) -> bytes:
        """The chunks of a generation's deltas; empty when they have nothing to say yet."""
        if len(deltas) == 1:
            return self._delta(generation, deltas[0])
        return b"".join([self._delta(generation, delta) for delta in deltas])

    def ending(self, usage: Usage) -> bytes:
        """What comes after all text."""
        if not self._with_usage:
            return DONE
        return event(self._shape.chunk_of([]) | {"usage": usage_fields(usage)}) + DONE

    def _delta(self, generation: int, delta: ChoiceDelta) -> bytes:
        if delta.text and delta.finish_reason is None and not self._shape.tells_logprobs:
            key = generation, delta.choice
            around = self._around.get(key) or self._make_around(*key)
            return around[0] + _ENCODER.encode(delta.text) + around[1]
        chunk = self._shape.chunk(generation, delta)
        return b"" if chunk is None else event(chunk | self._more)

    def _make_around(self, generation: int, choice: int) -> tuple[bytes, bytes]:
        chunk = self._shape.chunk(generation, ChoiceDelta(choice, _PLACE, 0, (), None))
        assert chunk is not None, "a delta with text has a chunk"
        before, _, behind = event(chunk | self._more).partition(_ENCODER.encode(_PLACE))
        self._around[generation, choice] = before, behind
        return before, behind
