"""What the scheduler decided for one step, and its translation into arrays."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import numpy as np

from rocmforge.engine.sequence import Sequence
from rocmforge.engine.step_plan import StepPlan
from rocmforge.sampling.sampler import SampleRow


@dataclass(frozen=True)
class Chunk:
    """The next `n_tokens` tokens of a sequence, and whether they end with a token to sample."""

    sequence: Sequence
    start: int
    n_tokens: int

    @property
    def end(self) -> int:
        """Positions computed when the step has run."""
        return self.start + self.n_tokens

    @property
    def is_sampled(self) -> bool:
        """True when the step gives the logits of the sequence's next token."""
        return self.end == self.sequence.num_tokens

    @property
    def is_decode(self) -> bool:
        """True for the one token that was sampled last."""
        return self.n_tokens == 1 and self.start >= self.sequence.num_prompt_tokens


@dataclass
class Batch:
    """The chunks of one step."""

    chunks: list[Chunk] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        """T."""
        return sum(chunk.n_tokens for chunk in self.chunks)

    @property
    def n_decode_tokens(self) -> int:
        """Tokens that were sampled in the step before."""
        return sum(chunk.is_decode for chunk in self.chunks)

    @property
    def sampled(self) -> list[Sequence]:
        """The sequences that get a token, in the order of the plan's logits rows."""
        return [chunk.sequence for chunk in self.chunks if chunk.is_sampled]

    def sample_rows(self) -> list[SampleRow]:
        """The sampler's rows, in the same order."""
        return [sequence.sample_row() for sequence in self.sampled]

    def plan(self) -> StepPlan:
        """The arrays of the step."""
        return make_plan(self.chunks)


def make_plan(chunks: Seq[Chunk]) -> StepPlan:
    """Arrays of one step from its chunks; see StepPlan for shapes and meaning."""
    lengths = np.array([chunk.n_tokens for chunk in chunks], np.int32)
    ends = np.cumsum(lengths, dtype=np.int32)
    tables = [chunk.sequence.table.block_ids for chunk in chunks]
    used = [chunk.sequence.table.blocks_for(chunk.end) for chunk in chunks]
    block_tables = np.full((len(chunks), max(used, default=0)), -1, np.int32)
    for row, (table, n) in enumerate(zip(tables, used, strict=True)):
        block_tables[row, :n] = table[:n]
    token_ids = [t for chunk in chunks for t in chunk.sequence.tokens(chunk.start, chunk.end)]
    return StepPlan(
        token_ids=np.array(token_ids, np.int32),
        positions=np.concatenate(
            [np.arange(chunk.start, chunk.end, dtype=np.int32) for chunk in chunks]
        ),
        query_start=np.concatenate([np.zeros(1, np.int32), ends]),
        context_len=np.array([chunk.end for chunk in chunks], np.int32),
        block_tables=block_tables,
        logits_rows=np.array(
            [end - 1 for end, chunk in zip(ends, chunks, strict=True) if chunk.is_sampled],
            np.int32,
        ),
    )
