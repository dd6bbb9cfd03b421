"""How OpenAI's routes say what was generated: chunks of a stream, and whole answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rocmforge.request import FinishReason, SamplingParams, Usage
from rocmforge.server.generation import ChoiceDelta, TokenText
from rocmforge.text.tokenizer import Tokenizer


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def finish_reason_field(reason: FinishReason | None) -> str | None:
    """OpenAI has no word for an answer that was cancelled elsewhere: it was stopped."""
    return "stop" if reason is FinishReason.cancelled else reason and str(reason)


@dataclass
class _Collected:
    texts: list[str] = field(default_factory=list)
    tokens: list[TokenText] = field(default_factory=list)
    finish_reason: FinishReason | None = None


class AnswerFormat(ABC):
    """The answer to one request; choices are numbered over its prompts."""

    route: ClassVar[str]
    is_continuation: ClassVar[bool]
    _object: ClassVar[str]
    _chunk_object: ClassVar[str]

    def __init__(
        self,
        response_id: str,
        model: str,
        created: int,
        tokenizer: Tokenizer,
        params: SamplingParams,
    ) -> None:
        self._head = {"id": response_id, "created": created, "model": model}
        self._tokenizer = tokenizer
        self._params = params
        self._collected: dict[int, _Collected] = {}

    @property
    def tells_logprobs(self) -> bool:
        """Whether chunks carry more than text."""
        return self._params.logprobs is not None

    def index(self, generation: int, choice: int) -> int:
        """A choice's number in the answer."""
        return generation * self._params.n + choice

    def collect(self, generation: int, delta: ChoiceDelta) -> None:
        """Keep a delta for `whole`."""
        choice = self._collected.setdefault(self.index(generation, delta.choice), _Collected())
        choice.texts.append(delta.text)
        choice.tokens.extend(delta.tokens)
        choice.finish_reason = delta.finish_reason or choice.finish_reason

    def whole(self, usage: Usage) -> dict[str, Any]:
        """The answer without a stream, of all that was collected."""
        choices = [
            self._choice(index, "".join(c.texts), c.tokens)
            | {"finish_reason": finish_reason_field(c.finish_reason)}
            for index, c in sorted(self._collected.items())
        ]
        body = {"object": self._object, "choices": choices, "usage": usage_fields(usage)}
        return self._head | body

    def chunk_of(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A chunk with these choices."""
        return self._head | {"object": self._chunk_object, "choices": choices}

    def chunk(self, generation: int, delta: ChoiceDelta) -> dict[str, Any] | None:
        """A delta's chunk; None when it has nothing to say yet."""
        if not (delta.text or delta.tokens or delta.finish_reason):
            return None
        if not delta.text and delta.finish_reason is None and self._params.logprobs is None:
            return None
        choice = self._delta(self.index(generation, delta.choice), delta)
        reason = finish_reason_field(delta.finish_reason)
        return self.chunk_of([choice | {"finish_reason": reason}])

    def openings(self, n_generations: int) -> list[dict[str, Any]]:
        """Chunks that come before any text."""
        del n_generations
        return []

    @abstractmethod
    def _choice(self, index: int, text: str, tokens: list[TokenText]) -> dict[str, Any]:
        """One choice of a whole answer."""

    @abstractmethod
    def _delta(self, index: int, delta: ChoiceDelta) -> dict[str, Any]:
        """One choice of a chunk."""


class ChatFormat(AnswerFormat):
    """/v1/chat/completions."""

    route = "/v1/chat/completions"
    is_continuation = False
    _object = "chat.completion"
    _chunk_object = "chat.completion.chunk"

    def openings(self, n_generations: int) -> list[dict[str, Any]]:
        """The role of each choice, in chunks of their own."""
        return [
            self.chunk_of(
                [
                    {
                        "index": index,
                        "delta": {"role": "assistant", "content": ""},
                        "logprobs": None,
                        "finish_reason": None,
                    }
                ]
            )
            for index in range(n_generations * self._params.n)
        ]

    def _choice(self, index: int, text: str, tokens: list[TokenText]) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": self._logprobs(tokens)}

    def _delta(self, index: int, delta: ChoiceDelta) -> dict[str, Any]:
        content = {"content": delta.text} if delta.text else {}
        return {"index": index, "delta": content, "logprobs": self._logprobs(delta.tokens)}

    def _logprobs(self, tokens: list[TokenText] | tuple[TokenText, ...]) -> dict[str, Any] | None:
        if self._params.logprobs is None:
            return None
        content = [
            self._token(t.token_id, t.logprob)
            | {"top_logprobs": [self._token(o.token_id, o.logprob) for o in t.top_logprobs]}
            for t in tokens
        ]
        return {"content": content, "refusal": None}

    def _token(self, token_id: int, logprob: float | None) -> dict[str, Any]:
        return {
            "token": self._tokenizer.token_text(token_id),
            "logprob": logprob,
            "bytes": list(self._tokenizer.token_bytes(token_id)),
        }


class CompletionFormat(AnswerFormat):
    """/v1/completions."""

    route = "/v1/completions"
    is_continuation = True
    _object = "text_completion"
    _chunk_object = "text_completion"

    def _choice(self, index: int, text: str, tokens: list[TokenText]) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": self._logprobs(tokens)}

    def _delta(self, index: int, delta: ChoiceDelta) -> dict[str, Any]:
        return {"index": index, "text": delta.text, "logprobs": self._logprobs(delta.tokens)}

    def _logprobs(self, tokens: list[TokenText] | tuple[TokenText, ...]) -> dict[str, Any] | None:
        if self._params.logprobs is None:
            return None
        text = self._tokenizer.token_text
        return {
            "tokens": [text(t.token_id) for t in tokens],
            "token_logprobs": [t.logprob for t in tokens],
            "top_logprobs": [{text(o.token_id): o.logprob for o in t.top_logprobs} for t in tokens],
            "text_offset": [t.offset for t in tokens],
        }
