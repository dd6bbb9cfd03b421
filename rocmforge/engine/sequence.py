"""One choice of one request: its tokens, how far they are computed, and its blocks."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from rocmforge.cache.block_table import BlockTable
from rocmforge.errors import InvalidStateTransition
from rocmforge.request import FinishReason, Request, RequestState
from rocmforge.sampling.sampler import SampleRow
from rocmforge.sampling.token_counts import TokenCounts

_NEXT_STATES = {
    RequestState.Pending: {RequestState.Processing, RequestState.Failed, RequestState.Cancelled},
    RequestState.Processing: {
        RequestState.Completed,
        RequestState.Failed,
        RequestState.Cancelled,
    },
    RequestState.Completed: set(),
    RequestState.Failed: set(),
    RequestState.Cancelled: set(),
}


class Sequence:
    """The unit that is scheduled.

    arrival: orders sequences of all requests, oldest first. leader: the sequence of the same
    request whose prompt blocks this one can share, or None. num_computed_tokens: positions whose
    keys and values are in the blocks; the rest of prompt + generated is still to be run, and the
    token after the last is sampled when it has been. num_cached_tokens: prompt positions that the
    prefix cache gave when the sequence was first admitted.

    A preempted sequence keeps its state Processing and its generated tokens, has no blocks, and
    waits: is_running is the scheduler's mark of those that have blocks.
    """

    def __init__(
        self,
        request: Request,
        choice: int,
        table: BlockTable,
        *,
        arrival: int,
        submitted_s: float,
        generated: Seq[int] = (),
        leader: Sequence | None = None,
    ) -> None:
        self.request = request
        self.choice = choice
        self.table = table
        self.arrival = arrival
        self.submitted_s = submitted_s
        self.leader = leader
        self.state = RequestState.Pending
        self.is_running = False
        self.generated = list(generated)
        self.num_prompt_tokens = len(request.prompt_ids)
        self.num_computed_tokens = 0
        self.num_cached_tokens = 0
        params = request.params
        eog_ids = () if params.ignore_eos else request.eog_ids
        self._end_ids = frozenset((*eog_ids, *params.stop_token_ids))
        self._suppressed = tuple(sorted({*request.eog_ids, *params.stop_token_ids}))
        self._counts = TokenCounts.of(params, request.prompt_ids)
        self._row: SampleRow | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and generated: the next token will have this position."""
        return self.num_prompt_tokens + len(self.generated)

    @property
    def num_missing_tokens(self) -> int:
        """Tokens to run before the next one can be sampled; 1 while decoding."""
        return self.num_tokens - self.num_computed_tokens

    @property
    def is_alive(self) -> bool:
        """True until a terminal state."""
        return self.state in (RequestState.Pending, RequestState.Processing)

    @property
    def waits_for_leader(self) -> bool:
        """True while another choice computes the prompt blocks that this one will share."""
        leader = self.leader
        return (
            leader is not None
            and leader.is_alive
            and leader.num_computed_tokens < self.num_prompt_tokens
        )

    def tokens(self, start: int, end: int) -> Seq[int]:
        """Ids of the positions start … end - 1."""
        n = self.num_prompt_tokens
        if end <= n:
            return self.request.prompt_ids[start:end]
        tail = self.generated[max(0, start - n) : end - n]
        return tail if start >= n else [*self.request.prompt_ids[start:], *tail]

    def move_to(self, state: RequestState) -> None:
        """Change the state. Raises InvalidStateTransition for an impossible change."""
        if state not in _NEXT_STATES[self.state]:
            raise InvalidStateTransition(
                f"request {self.request.request_id}, choice {self.choice}: "
                f"cannot go from {self.state} to {state}"
            )
        self.state = state

    def sample_row(self) -> SampleRow:
        """What decides the next token; valid until the next call."""
        # Suppression ends with min_tokens; all else but the position stays from step to step.
        if self._row is None or len(self.generated) == self.request.params.min_tokens:
            self._row = self._make_row()
        self._row.position = self.num_tokens
        return self._row

    def _make_row(self) -> SampleRow:
        params = self.request.params
        return SampleRow(
            params=params,
            # Process A draws a seed for requests that come without one.
            seed=params.seed or 0,
            choice=self.choice,
            position=self.num_tokens,
            prompt_ids=self.request.prompt_ids,
            generated_ids=self.generated,
            suppressed_ids=self._suppressed if len(self.generated) < params.min_tokens else (),
            history=self._counts,
        )

    def finish_reason(self, n_ctx: int) -> FinishReason | None:
        """Why the choice has ended with its last generated token; None when it goes on."""
        if self.generated and self.generated[-1] in self._end_ids:
            return FinishReason.stop
        max_tokens = self.request.params.max_tokens
        if max_tokens is not None and len(self.generated) >= max_tokens:
            return FinishReason.length
        return FinishReason.length if self.num_tokens >= n_ctx else None
