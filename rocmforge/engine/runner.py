"""The loaded model with its KV cache, ready to run steps."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rocmforge.backends.ops import Backend, Program, StepLimits
from rocmforge.clock import monotonic_s
from rocmforge.config import EngineConfig
from rocmforge.engine.engine_device import EngineDevice
from rocmforge.engine.memory import cache_blocks, sequence_length
from rocmforge.engine.memory_plan import kv_geometry, step_limits
from rocmforge.engine.step_budget import TELLING_TOKENS
from rocmforge.engine.step_plan import EngineLimits, StepPlan
from rocmforge.gguf.metadata import Metadata
from rocmforge.models.loading import LoadedModel
from rocmforge.sampling.sampler import Sampler
from rocmforge.wire.protocol import EngineFacts

# The fewest that StepBudget learns from: the start of a server waits for them.
WARM_UP_TOKENS = TELLING_TOKENS


class Runner:
    """Runs step plans on a backend; owns the backend."""

    def __init__(
        self,
        backend: Backend,
        model: LoadedModel,
        config: EngineConfig,
        op_counter: memoryview | None = None,
        device: EngineDevice | None = None,
    ) -> None:
        """Size the KV cache and record the model's program.

        op_counter: uint64 [1], counts finished operations. device: what the backend makes its calls
        with, for the engine to count. Raises InvalidCacheConfiguration or
        CacheCapacityExceeded when the cache cannot be had, and the backend's errors.
        """
        spec = model.spec
        self.device = device
        self._backend = backend
        self._model = model
        self._config = config
        size = config.cache.block_tokens
        n_ctx = sequence_length(config, spec.n_ctx_train)
        self.kv = kv_geometry(config, spec, 1)
        n_blocks = cache_blocks(config, n_ctx, self.kv.block_bytes)
        self.kv = replace(self.kv, n_blocks=n_blocks)
        self.limits = EngineLimits(
            n_vocab=spec.n_vocab,
            n_ctx=min(n_ctx, n_blocks * size),
            n_blocks=n_blocks,
            block_bytes=self.kv.block_bytes,
        )
        self._program: Program = backend.create_program(
            model.forward, self.kv, step_limits(config, self.limits.n_ctx), op_counter
        )

    @property
    def metadata(self) -> Metadata:
        """Of the model file; empty after `forget_metadata`."""
        return self._model.metadata

    def forget_metadata(self) -> None:
        """Free it: a vocabulary is some 20 MB, and the engine process has no use for it."""
        self._model = replace(self._model, metadata=Metadata({}))

    def run(self, plan: StepPlan) -> npt.NDArray[np.float32]:
        """Run one step → logits float32 [R, V], valid until the next call."""
        return self._program.run(plan)

    def new_sampler(self) -> Sampler:
        """A sampler of this model's logits, with the backend's number of threads and kernels."""
        n_threads = min(self._backend.n_threads, self._config.scheduler.max_batch_size)
        return Sampler(self.limits.n_vocab, n_threads=n_threads, isa=self._backend.isa)

    def new_program(self, n_blocks: int, *, max_tokens: int) -> Program:
        """Another program over the same weights, for one sequence with `n_blocks` blocks of its
        own and the logits of all its tokens; the caller closes it, before this runner.
        """
        return self._backend.create_program(
            self._model.forward,
            replace(self.kv, n_blocks=n_blocks),
            StepLimits(
                max_tokens=max_tokens,
                max_sequences=1,
                max_rows=max_tokens,
                max_blocks_per_sequence=n_blocks,
            ),
        )

    def warm_up(self) -> tuple[int, float]:
        """Run empty blocks, so that the first request finds everything in place: one token, then a
        short chunk; (the chunk's tokens, milliseconds). Nothing of it is ever read.
        """
        # The first run pays for page faults and idle threads, the second shows the speed.
        self.run(self._idle_plan(1))
        n = min(WARM_UP_TOKENS, self._config.scheduler.max_step_tokens, self.limits.n_ctx)
        plan = self._idle_plan(n)
        start_s = monotonic_s()
        self.run(plan)
        return n, (monotonic_s() - start_s) * 1000

    def _idle_plan(self, n_tokens: int) -> StepPlan:
        """One sequence of zeros in the first blocks."""
        n_used = -(-n_tokens // self.kv.block_tokens)
        return StepPlan(
            token_ids=np.zeros(n_tokens, np.int32),
            positions=np.arange(n_tokens, dtype=np.int32),
            query_start=np.array([0, n_tokens], np.int32),
            context_len=np.array([n_tokens], np.int32),
            block_tables=np.arange(n_used, dtype=np.int32).reshape(1, n_used),
            logits_rows=np.array([n_tokens - 1], np.int32),
        )

    def facts(self, load_s: float) -> EngineFacts:
        """What really runs."""
        spec, scheduling = self._model.spec, self._config.scheduler
        return EngineFacts(
            pid=os.getpid(),
            backend=self._backend.name,
            device=self._backend.device,
            isa=self._backend.isa,
            n_threads=self._backend.n_threads,
            weight_types=dict(self._model.weight_types),
            decoded_types=dict(self._model.decoded_types),
            activation_dtype="f32",
            kv_type=self.kv.kv_type,
            kv_bytes=self.kv.block_bytes * self.kv.n_blocks,
            weight_bytes=self._model.weight_bytes,
            architecture=spec.architecture,
            n_vocab=spec.n_vocab,
            n_ctx=self.limits.n_ctx,
            n_ctx_train=spec.n_ctx_train,
            n_blocks=self.kv.n_blocks,
            block_tokens=self.kv.block_tokens,
            max_batch_size=scheduling.max_batch_size,
            max_step_tokens=scheduling.max_step_tokens,
            # Every CPU kernel gives a row the same result in any batch.
            deterministic=True,
            load_s=load_s,
            weights_source=self._model.weights_source,
        )

    def close(self) -> None:
        """Free the cache, the weights and the threads."""
        self._program.close()
        self._backend.close()
