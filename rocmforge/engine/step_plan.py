"""The step contract: what the scheduler hands to the runner, as plain arrays.

Legend: T tokens in the step, S sequences, R rows whose logits are needed, M blocks of the longest
table, P positions per block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class StepPlan:
    """One forward pass over T tokens of S sequences; each sequence's tokens are contiguous and
    ascending.

    Invariants (`check()`): query_start[0] == 0, query_start[S] == T, every sequence has at least
    one token; context_len[s] is the number of positions sequence s holds *after* this step, so its
    tokens have the positions context_len[s] - (query_start[s+1] - query_start[s]) … context_len[s]
    - 1, and these are what `positions` says; block_tables[s, : ceil(context_len[s] / P)] are valid,
    distinct block ids, the rest is -1; logits_rows are ascending indices into T. Blocks that two
    sequences share are full and are read only.
    """

    token_ids: Int32Array
    """int32 [T]: input tokens."""
    positions: Int32Array
    """int32 [T]: absolute position of each token in its sequence."""
    query_start: Int32Array
    """int32 [S + 1]: first row of each sequence."""
    context_len: Int32Array
    """int32 [S]: positions in the cache after the step, this step's tokens included."""
    block_tables: Int32Array
    """int32 [S, M]: physical block of each logical block, -1 beyond the end."""
    logits_rows: Int32Array
    """int32 [R]: rows of the step whose logits are wanted (R may be 0)."""
    block_copies: Int32Array = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    """int32 [C, 2]: (source, destination) blocks to copy before the step (copy-on-write)."""

    @property
    def n_tokens(self) -> int:
        """T."""
        return int(self.token_ids.shape[0])

    @property
    def n_sequences(self) -> int:
        """S."""
        return int(self.context_len.shape[0])

    def check(self, block_tokens: int, n_blocks: int) -> None:
        """Assert the invariants above (ours to keep; called by tests and when a debug flag is
        set).
        """
        starts, lengths = self.query_start, np.diff(self.query_start)
        assert starts[0] == 0
        assert starts[-1] == self.n_tokens
        assert (lengths > 0).all()
        for s, (start, n) in enumerate(zip(starts[:-1], lengths, strict=True)):
            end = int(self.context_len[s])
            assert (self.positions[start : start + n] == np.arange(end - n, end)).all()
            used = -(-end // block_tokens)
            table = self.block_tables[s]
            assert ((table[:used] >= 0) & (table[:used] < n_blocks)).all()
            assert (table[used:] == -1).all()
            assert len(set(table[:used].tolist())) == used
        assert (np.diff(self.logits_rows) > 0).all()


@dataclass(frozen=True)
class EngineLimits:
    """What a runner can hold: V, positions of one sequence, and the KV cache's blocks."""

    n_vocab: int
    n_ctx: int
    n_blocks: int
    block_bytes: int


class StepRunner(Protocol):
    """What runs the plans."""

    @property
    def limits(self) -> EngineLimits:
        """Plans stay within these and within the configured batch."""
        ...

    def run(self, plan: StepPlan) -> npt.NDArray[np.float32]:
        """Run one step → logits float32 [R, V], valid until the next call.

        Raises a BackendError or MemoryError; then the step may be run again.
        """
        ...

    def close(self) -> None:
        """Free the device's memory; nothing runs afterwards."""
        ...
