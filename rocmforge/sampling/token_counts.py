"""The tokens that penalties touch, counted as they are generated."""

from __future__ import annotations

from collections.abc import Sequence

from rocmforge import _native
from rocmforge.request import SamplingParams


class TokenCounts:
    """How often each token of one choice was generated, and with a repetition penalty which tokens
    its prompt has; one step counts the tokens that are new in it.
    """

    def __init__(self, prompt_ids: Sequence[int]) -> None:
        self._native = _native.TokenHistory()
        self._native.add_prompt(prompt_ids)
        self._n_generated = 0

    @staticmethod
    def of(params: SamplingParams, prompt_ids: Sequence[int]) -> TokenCounts | None:
        """The counts that `params` need, before anything is generated; None without penalties."""
        if params.repetition_penalty != 1.0:
            return TokenCounts(prompt_ids)
        if params.presence_penalty != 0.0 or params.frequency_penalty != 0.0:
            return TokenCounts(())
        return None

    def up_to(self, generated_ids: Sequence[int]) -> _native.TokenHistory:
        """All of generated_ids counted; they continue those of the last call."""
        if len(generated_ids) > self._n_generated:
            self._native.add_generated(generated_ids[self._n_generated :])
            self._n_generated = len(generated_ids)
        return self._native
