"""What the scheduler decided for one step, and its translation into arrays."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import msgspec
import numpy as np

from rocmforge.cache.block_table import PACKED_BYTES
from rocmforge.engine.sequence import Sequence
from rocmforge.engine.step_plan import Int32Array, StepPlan
from rocmforge.sampling.sampler import SampleRow


class Chunk(msgspec.Struct, frozen=True, eq=False):
    """The next `n_tokens` tokens of a sequence, from position `start` on.

    is_sampled: the step gives the logits of the sequence's next token. is_decode: it is the one
    token that was sampled last.
    """

    sequence: Sequence
    start: int
    n_tokens: int
    is_sampled: bool
    is_decode: bool

    @classmethod
    def of(cls, sequence: Sequence, n_tokens: int) -> Chunk:
        """What comes next in a sequence."""
        start = sequence.num_computed_tokens
        return cls(
            sequence,
            start,
            n_tokens,
            is_sampled=start + n_tokens == sequence.num_tokens,
            is_decode=n_tokens == 1 and start >= sequence.num_prompt_tokens,
        )

    @property
    def end(self) -> int:
        """Positions computed when the step has run."""
        return self.start + self.n_tokens


@dataclass
class Batch:
    """The chunks of one step."""

    chunks: list[Chunk] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        """T."""
        return sum([chunk.n_tokens for chunk in self.chunks])

    @property
    def n_decode_tokens(self) -> int:
        """Tokens that were sampled in the step before."""
        return sum([chunk.is_decode for chunk in self.chunks])

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
    token_ids: list[int] = []
    positions: list[int] = []
    query_start, context_len, logits_rows = [0], [], []
    tables: list[bytes] = []
    for chunk in chunks:
        sequence, end = chunk.sequence, chunk.end
        token_ids += sequence.tokens(chunk.start, end)
        positions += range(chunk.start, end)
        query_start.append(len(token_ids))
        context_len.append(end)
        tables.append(sequence.table.packed(end))
        if chunk.is_sampled:
            logits_rows.append(len(token_ids) - 1)
    return StepPlan(
        token_ids=np.array(token_ids, np.int32),
        positions=np.array(positions, np.int32),
        query_start=np.array(query_start, np.int32),
        context_len=np.array(context_len, np.int32),
        block_tables=_padded(tables),
        logits_rows=np.array(logits_rows, np.int32),
    )


def _padded(tables: Seq[bytes]) -> Int32Array:
    """int32 [S, M] of tables of different lengths, with -1 behind each."""
    width = max(map(len, tables), default=0)
    # Every byte of -1 is 255.
    flat = b"".join([table.ljust(width, b"\xff") for table in tables])
    return np.frombuffer(flat, np.int32).reshape(len(tables), width // PACKED_BYTES)
