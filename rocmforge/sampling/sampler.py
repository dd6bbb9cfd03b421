"""The sampler: logits and parameters in, token ids out; the arithmetic is native/sample.cc.

A row's result depends on that row's logits, its parameters, its history and (seed, choice,
position) alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from rocmforge import _native
from rocmforge.errors import EmptyLogits, InferenceFailed, RocmForgeError, ZeroProbabilities
from rocmforge.request import SamplingParams, TokenLogprob
from rocmforge.sampling.token_counts import TokenCounts

_NOT_FINITE = 1
_NO_CANDIDATE = 2


class SampleRow(msgspec.Struct, kw_only=True):
    """What decides the token of one row of logits. A choice has one for many steps, in which
    `position` and `generated_ids` grow and all else stays.

    position: the absolute position that the new token will have (the number of tokens before it).
    suppressed_ids: tokens that may not be chosen now (EOG and stop ids while below min_tokens).
    """

    params: SamplingParams
    seed: int
    choice: int
    position: int
    prompt_ids: Sequence[int]
    generated_ids: Sequence[int]
    suppressed_ids: tuple[int, ...] = ()
    history: TokenCounts | None = None
    """The ids as counted in earlier steps; without it they are counted at the first."""
    _prepared: _native.SampleRow | None = None

    def native(self, n_vocab: int) -> _native.SampleRow:
        """The row as the native sampler takes it, for logits of n_vocab columns."""
        if self._prepared is None:
            self.history = self.history or TokenCounts.of(self.params, self.prompt_ids)
            self._prepared = _native_row(self, n_vocab)
        if self.history is not None:
            self.history.up_to(self.generated_ids)
        self._prepared.position = self.position
        return self._prepared


class SampledToken(msgspec.Struct, frozen=True):
    """A chosen token; logprob and top_logprobs only when params.logprobs asks for them.

    Log-probabilities are natural logs of the softmax of the raw logits (before penalties and
    temperature).
    """

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] | None = None


class Sampler:
    """Chooses one token per row of logits; what it keeps is memory, so a restart can draw a token
    again.
    """

    def __init__(self, n_vocab: int, *, n_threads: int = 1, isa: str = "auto") -> None:
        """n_threads: how many rows are sampled at once. isa: whose kernels, by the backend's name
        for it; all give the same tokens."""
        self.n_vocab = n_vocab
        self._native = _native.BatchSampler(_native.ThreadPool(n_threads), isa)

    @property
    def isa(self) -> str:
        """The instruction set of the kernels that run."""
        return self._native.isa

    def sample(
        self, logits: npt.NDArray[np.float32], rows: Sequence[SampleRow]
    ) -> list[SampledToken | RocmForgeError]:
        """Sample every row of `logits` [R, V] by its entry of `rows`.

        A row that cannot be sampled gets its error in place of a token, so that it never costs the
        batch: InferenceFailed for logits that are not finite, ZeroProbabilities when every token is
        suppressed. Raises EmptyLogits when V is 0 or R is not len(rows).
        """
        if logits.ndim != 2 or logits.shape != (len(rows), self.n_vocab) or self.n_vocab == 0:
            raise EmptyLogits(
                f"expected logits of shape ({len(rows)}, {self.n_vocab}), got {logits.shape}"
            )
        if not rows:
            return []
        results = self._native.sample(
            np.ascontiguousarray(logits), [row.native(self.n_vocab) for row in rows]
        )
        return [_unpack(row, result) for row, result in zip(rows, results, strict=True)]


def _native_row(row: SampleRow, n_vocab: int) -> _native.SampleRow:
    p = row.params
    return _native.sample_row_params(
        temperature=p.temperature,
        top_k=p.top_k,
        top_p=p.top_p,
        min_p=p.min_p,
        repetition_penalty=p.repetition_penalty,
        presence_penalty=p.presence_penalty,
        frequency_penalty=p.frequency_penalty,
        n_logprobs=-1 if p.logprobs is None else p.logprobs,
        seed=row.seed & (2**64 - 1),
        choice=row.choice,
        position=row.position,
        history=None if row.history is None else row.history.up_to(row.generated_ids),
        biases=[(i, bias) for i, bias in p.logit_bias.items() if 0 <= i < n_vocab],
        suppressed=[i for i in row.suppressed_ids if 0 <= i < n_vocab],
    )


def _unpack(
    row: SampleRow, result: tuple[int, int, float, list[int], list[float]]
) -> SampledToken | RocmForgeError:
    status, token_id, logprob, top_ids, top_logprobs = result
    if status == _NOT_FINITE:
        return InferenceFailed(
            "the model gave logits that are not finite; the model file may be damaged"
        )
    if status == _NO_CANDIDATE:
        return ZeroProbabilities(
            "no token is left to choose from; allow more tokens or lower min_tokens"
        )
    if row.params.logprobs is None:
        return SampledToken(token_id)
    top = tuple(TokenLogprob(i, p) for i, p in zip(top_ids, top_logprobs, strict=True))
    return SampledToken(token_id, logprob, top)
