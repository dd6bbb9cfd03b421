"""How many tokens fit into a step of bounded time."""

from __future__ import annotations

# Before anything is measured: small enough for a slow machine, and enough to measure.
_FIRST_TOKENS = 64
# Fewer tokens than this measure the fixed cost of a step (reading all weights once) more than the
# cost of a token.
TELLING_TOKENS = 16
# Aim below the limit: the next chunk attends to more keys than the measured one.
_MARGIN = 0.8
_SMOOTHING = 0.25


class StepBudget:
    """The token limit of a step: at most `max_tokens`, and few enough to stay below `max_ms`.

    It believes a slower measurement at once and a faster one slowly. Tokens never depend on it: how
    a prompt is cut into chunks does not change what is computed.
    """

    def __init__(self, max_tokens: int, max_ms: float) -> None:
        self._max_tokens = max_tokens
        self._max_ms = max_ms
        self._ms_per_token: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens for the next step, 1 … max_tokens."""
        if self._ms_per_token is None:
            return min(self._max_tokens, _FIRST_TOKENS)
        fitting = int(_MARGIN * self._max_ms / max(self._ms_per_token, 1e-9))
        return max(1, min(self._max_tokens, fitting))

    def prefill_tokens(self, n_decode: int) -> int:
        """What `n_decode` tokens leave for prompts. Never nothing, as long as the step has room
        within max_tokens: a full batch may slow a prompt down, not stop it.
        """
        share = max(1, self.tokens // 4)
        return max(0, min(self._max_tokens - n_decode, max(share, self.tokens - n_decode)))

    def observe(self, n_tokens: int, elapsed_ms: float) -> None:
        """Learn from a step."""
        if n_tokens < min(TELLING_TOKENS, self.tokens):
            return
        measured = elapsed_ms / n_tokens
        known = self._ms_per_token
        if known is not None and measured < known:
            measured = known + _SMOOTHING * (measured - known)
        self._ms_per_token = measured

    def limit_to(self, n_tokens: int) -> None:
        """No more than `n_tokens` (at least one) until measurements say otherwise: memory ran
        out.
        """
        # Half a token more, so that rounding down gives n_tokens.
        self._ms_per_token = _MARGIN * self._max_ms / (max(1, n_tokens) + 0.5)
