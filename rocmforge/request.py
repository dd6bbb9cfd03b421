"""The shared nouns of a request: both processes, the wire and the Python API use the same names.

Everything here is a frozen `msgspec.Struct`, so it crosses the wire as it is.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NewType

import msgspec

from rocmforge.errors import InvalidRequest, InvalidTemperature, InvalidTopK, InvalidTopP

RequestId = NewType("RequestId", str)
TokenId = NewType("TokenId", int)

MAX_STOP_STRINGS = 16
MAX_STOP_STRING_CHARS = 1024
MAX_CHOICES = 32
MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
# Answers without a limit of their own are counted as this long while they wait.
USUAL_ANSWER_TOKENS = 1000


class FinishReason(StrEnum):
    """Why a choice ended. `stop` covers EOS, stop token ids and stop strings."""

    stop = "stop"
    length = "length"
    cancelled = "cancelled"


class RequestState(StrEnum):
    """Life of a request: Pending → Processing → Completed | Failed | Cancelled."""

    Pending = "pending"
    Processing = "processing"
    Completed = "completed"
    Failed = "failed"
    Cancelled = "cancelled"


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tokens are chosen and when generation ends.

    temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 mean off. `seed` is always set by process
    A before the request is journalled (a missing one is drawn there), so that a resumed stream
    repeats its draws. Penalties as in the field: repetition_penalty divides positive and multiplies
    negative logits of every token in prompt + output (1 is off); presence/frequency count generated
    tokens only.

    Raises InvalidTemperature, InvalidTopK, InvalidTopP or InvalidRequest (with `param`) on a bad
    value.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    """None: no logprobs; k ≥ 0: the sampled token's, and those of the k likeliest."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _check_sampling(self)


def _check_sampling(p: SamplingParams) -> None:
    if not (math.isfinite(p.temperature) and 0.0 <= p.temperature <= 100.0):
        raise InvalidTemperature(
            f"temperature must be between 0 and 100, got {p.temperature}", param="temperature"
        )
    # No vocabulary is larger, and no message to the engine carries numbers beyond 64 bits.
    if not 0 <= p.top_k < 2**31:
        raise InvalidTopK(
            f"top_k must be 0 (off) or positive and below 2^31, got {p.top_k}", param="top_k"
        )
    if not 0.0 < p.top_p <= 1.0:
        raise InvalidTopP(f"top_p must be in (0, 1], got {p.top_p}", param="top_p")
    _check_range("min_p", p.min_p, 0.0, 1.0)
    _check_range("repetition_penalty", p.repetition_penalty, 1e-3, 100.0)
    _check_range("presence_penalty", p.presence_penalty, -2.0, 2.0)
    _check_range("frequency_penalty", p.frequency_penalty, -2.0, 2.0)
    _check_range("n", p.n, 1, MAX_CHOICES)
    _check_range("max_tokens", p.max_tokens, 1, 2**31 - 1)
    _check_range("min_tokens", p.min_tokens, 0, 2**31 - 1)
    _check_range("logprobs", p.logprobs, 0, MAX_LOGPROBS)
    _check_range("seed", p.seed, -(2**63), 2**64 - 1)
    if len(p.stop) > MAX_STOP_STRINGS:
        raise InvalidRequest(f"at most {MAX_STOP_STRINGS} stop strings are allowed", param="stop")
    if any(not 0 < len(s) <= MAX_STOP_STRING_CHARS for s in p.stop):
        raise InvalidRequest(
            f"a stop string must have 1 to {MAX_STOP_STRING_CHARS} characters", param="stop"
        )
    if len(p.logit_bias) > MAX_LOGIT_BIAS:
        raise InvalidRequest(
            f"at most {MAX_LOGIT_BIAS} logit_bias entries are allowed", param="logit_bias"
        )
    for bias in p.logit_bias.values():
        _check_range("logit_bias", bias, -100.0, 100.0)


def _check_range(param: str, value: float | None, low: float, high: float) -> None:
    # Written so that NaN fails too.
    if value is not None and not low <= value <= high:
        raise InvalidRequest(f"{param} must be between {low} and {high}, got {value}", param=param)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of a finished request, over all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token and the natural log of its probability under softmax of the raw logits."""

    token_id: int
    logprob: float


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine needs to serve one request, and all it needs to go on after a restart.

    `generated` holds, per choice, the token ids that were already sampled before an engine restart
    (or is empty); `finished` lists the choices that have ended and are not run again.
    """

    request_id: RequestId
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    eog_ids: tuple[int, ...] = ()
    """Token ids that end a generation (EOS, EOT …) unless params.ignore_eos: A knows them from the
    tokenizer.
    """
    generated: tuple[tuple[int, ...], ...] = ()
    finished: tuple[int, ...] = ()

    def expected_tokens(self, n_ctx: int) -> int:
        """Tokens it will come to over all choices, as far as can be said before: the prompt, and
        max_tokens or a usual answer's where that fits into a context of n_ctx positions."""
        asked, rest = self.params.max_tokens, n_ctx - len(self.prompt_ids)
        answer = min(rest, USUAL_ANSWER_TOKENS if asked is None else asked)
        return len(self.prompt_ids) + self.params.n * answer
