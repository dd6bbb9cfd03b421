"""Logits of every position of a text, apart from the engine's requests and its cache."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rocmforge.backends.ops import Program
from rocmforge.engine.runner import Runner
from rocmforge.engine.step_plan import StepPlan

MAX_CHUNK_TOKENS = 256
# Logits of one chunk, before they are copied into the result: bounds what large vocabularies take.
_CHUNK_BYTES = 32 * 2**20


class LogitsProgram:
    """A second program over a runner's weights, with a KV cache for one sequence that grows with
    what is asked for.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        n_vocab = runner.limits.n_vocab
        self._chunk = max(1, min(MAX_CHUNK_TOKENS, _CHUNK_BYTES // (4 * n_vocab)))
        self._program: Program | None = None
        self._n_blocks = 0

    def logits(self, token_ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """float32 [T, V]: row t is what the model expects after token_ids[: t + 1].

        token_ids int32 [T] must be valid ids, at most the runner's n_ctx of them. The result does
        not depend on how the text is cut into chunks.
        """
        n = len(token_ids)
        program = self._program_for(n)
        result = np.empty((n, self._runner.limits.n_vocab), np.float32)
        for start in range(0, n, self._chunk):
            end = min(n, start + self._chunk)
            result[start:end] = program.run(self._plan(token_ids[start:end], start))
        return result

    def close(self) -> None:
        """Free the cache."""
        if self._program is not None:
            self._program.close()
            self._program = None
            self._n_blocks = 0

    def _program_for(self, n_tokens: int) -> Program:
        """The program, with a cache for that many positions; it doubles, so that ever longer texts
        do not build one each.
        """
        size = self._runner.kv.block_tokens
        n_needed = -(-n_tokens // size)
        if self._program is None or n_needed > self._n_blocks:
            self.close()
            most = -(-self._runner.limits.n_ctx // size)
            self._n_blocks = min(most, 1 << (n_needed - 1).bit_length())
            self._program = self._runner.new_program(self._n_blocks, max_tokens=self._chunk)
        return self._program

    def _plan(self, token_ids: npt.NDArray[np.int32], start: int) -> StepPlan:
        n = len(token_ids)
        end = start + n
        n_used = -(-end // self._runner.kv.block_tokens)
        return StepPlan(
            token_ids=token_ids,
            positions=np.arange(start, end, dtype=np.int32),
            query_start=np.array([0, n], np.int32),
            context_len=np.array([end], np.int32),
            block_tables=np.arange(n_used, dtype=np.int32).reshape(1, n_used),
            logits_rows=np.arange(n, dtype=np.int32),
        )
