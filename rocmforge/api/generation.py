"""What a generation gives, and how it grows from the engine's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rocmforge.request import FinishReason, TokenLogprob, Usage
from rocmforge.text.detokenizer import Detokenizer
from rocmforge.wire.protocol import TokenOutput


@dataclass(frozen=True)
class ScoredToken:
    """A generated token with its log probability, and the likeliest tokens at its place."""

    token_id: int
    logprob: float
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class GenerationDelta:
    """What one token added to one choice.

    text: may be empty (half a character, or the possible beginning of a stop string, is held back).
    finish_reason: set on the choice's last delta. logprob: None unless params.logprobs asks for it.
    """

    choice: int
    token_id: int
    text: str
    finish_reason: FinishReason | None = None
    logprob: ScoredToken | None = None


@dataclass(frozen=True)
class GeneratedChoice:
    """One finished answer.

    text: without the end token and the stop string; empty for a model without tokenizer. token_ids:
    all sampled ids, the end token included. logprobs: one for each of them, None unless
    params.logprobs asks.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[ScoredToken, ...] | None = None


@dataclass(frozen=True)
class GenerationResult:
    """All `n` choices of a prompt; `text`, `token_ids`, `finish_reason` and `logprobs` are the
    first one's.
    """

    choices: tuple[GeneratedChoice, ...]
    usage: Usage

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The first choice's token ids."""
        return self.choices[0].token_ids

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first choice ended."""
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> tuple[ScoredToken, ...] | None:
        """The first choice's logprobs."""
        return self.choices[0].logprobs


class GrowingChoice:
    """One choice while it grows. `detokenizer` None: ids only."""

    def __init__(self, index: int, detokenizer: Detokenizer | None) -> None:
        self._index = index
        self._detokenizer = detokenizer
        self._ids: list[int] = []
        self._logprobs: list[ScoredToken] = []
        self._text: list[str] = []
        self.finish_reason: FinishReason | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens so far."""
        return len(self._ids)

    def push(self, token: TokenOutput) -> GenerationDelta:
        """Take the engine's next token. A stop string may end the choice before the engine does."""
        self._ids.append(token.token_id)
        scored = _scored(token)
        if scored is not None:
            self._logprobs.append(scored)
        text, is_stopped = self._advance(token)
        self._text.append(text)
        self.finish_reason = FinishReason.stop if is_stopped else token.finish_reason
        return GenerationDelta(self._index, token.token_id, text, self.finish_reason, scored)

    def _advance(self, token: TokenOutput) -> tuple[str, bool]:
        """The text that the token makes certain, and whether a stop string ended it."""
        detokenizer = self._detokenizer
        if detokenizer is None:
            return "", False
        text, is_stopped = "", False
        # A token that ends the text is not part of it.
        if token.finish_reason is not FinishReason.stop:
            delta = detokenizer.push(token.token_id)
            text, is_stopped = delta.text, delta.stopped
        if token.finish_reason is not None and not is_stopped:
            delta = detokenizer.flush()
            text, is_stopped = text + delta.text, delta.stopped
        return text, is_stopped

    def result(self) -> GeneratedChoice | None:
        """The finished choice; None while it grows."""
        if self.finish_reason is None:
            return None
        logprobs = tuple(self._logprobs) if self._logprobs else None
        return GeneratedChoice("".join(self._text), tuple(self._ids), self.finish_reason, logprobs)


def _scored(token: TokenOutput) -> ScoredToken | None:
    if token.logprob is None:
        return None
    return ScoredToken(token.token_id, token.logprob, token.top_logprobs or ())


def usage_of(n_prompt: int, choices: Sequence[GrowingChoice], n_cached: int) -> Usage:
    """The token counts over all choices."""
    return Usage(
        prompt_tokens=n_prompt,
        completion_tokens=sum(choice.n_tokens for choice in choices),
        cached_tokens=n_cached,
    )
