"""The engine: requests in, tokens out, one step at a time. Read this first.

`step()` is the whole life of a request in four calls: the scheduler composes a batch, the runner
computes it, the sampler chooses tokens, and what came out is committed and emitted. Nothing is
committed before sampling has succeeded, so a step that raises can be run again.

One thread owns an engine; it takes no locks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from rocmforge.cache.block_pool import BlockPool
from rocmforge.cache.block_table import BlockTable
from rocmforge.cache.prefix_cache import PrefixCache
from rocmforge.clock import monotonic_s
from rocmforge.config import EngineConfig
from rocmforge.engine.batch import Batch
from rocmforge.engine.counters import StepCounters
from rocmforge.engine.engine_device import EngineDevice
from rocmforge.engine.intake import check_request, make_sequences, unfinished
from rocmforge.engine.recovery import run_within_memory
from rocmforge.engine.scheduler import Scheduler
from rocmforge.engine.sequence import Sequence
from rocmforge.engine.step_budget import StepBudget
from rocmforge.engine.step_plan import StepRunner
from rocmforge.errors import InvalidRequest, RocmForgeError
from rocmforge.request import Request, RequestId, RequestState
from rocmforge.sampling.sampler import SampledToken, Sampler
from rocmforge.wire.protocol import (
    EngineStats,
    RequestFailed,
    RequestStarted,
    StepOutput,
    TokenOutput,
    WireError,
)


@dataclass
class _LiveRequest:
    """The choices of a request that have not ended, and whether A knows that it has begun."""

    sequences: dict[int, Sequence]
    is_announced: bool = False


class Engine:
    """Serves any number of requests at once; all state of a request ends with it."""

    def __init__(
        self,
        runner: StepRunner,
        sampler: Sampler,
        config: EngineConfig,
        *,
        budget: StepBudget | None = None,
        clock: Callable[[], float] = monotonic_s,
        check_invariants: bool = False,
        device: EngineDevice | None = None,
    ) -> None:
        """device: what `runner` runs on; before one of its allocations is retried, idle prefixes
        are forgotten.
        """
        limits = runner.limits
        pool = BlockPool(limits.n_blocks, config.cache.block_tokens)
        prefix_cache = (
            PrefixCache(pool, block_bytes=limits.block_bytes) if config.cache.prefix_cache else None
        )
        if device is not None and prefix_cache is not None:
            device.retrying.free_memory_by(prefix_cache.clear)
        scheduling = config.scheduler
        budget = budget or StepBudget(scheduling.max_step_tokens, scheduling.max_step_ms)
        self._scheduler = Scheduler(pool, prefix_cache, scheduling, budget)
        self._runner = runner
        self._sampler = sampler
        self._n_vocab = limits.n_vocab
        # A sequence that has the cache for itself must fit, or it would preempt itself for ever.
        self._n_ctx = min(limits.n_ctx, limits.n_blocks * config.cache.block_tokens)
        self._clock = clock
        self._check_invariants = check_invariants
        self._counters = StepCounters(device)
        self._arrivals = count()
        self._live: dict[RequestId, _LiveRequest] = {}

    @property
    def has_work(self) -> bool:
        """True while a request lives."""
        return self._scheduler.has_work

    def stats(self) -> EngineStats:
        """Gauges of now and counters since the start."""
        return self._counters.stats(self._scheduler)

    def submit(self, request: Request) -> None:
        """Accept a request, or one that had begun before a restart.

        Raises InvalidRequest, ContextLengthExceeded, QueueCapacityExceeded or BatchSizeExceeded.
        """
        if request.request_id in self._live:
            raise InvalidRequest(f"request id {request.request_id!r} is in use", param="request_id")
        check_request(request, self._n_vocab, self._n_ctx)
        self._scheduler.check_capacity(len(unfinished(request)))
        now = self._clock()

        def make(choice: int, generated: tuple[int, ...], leader: Sequence | None) -> Sequence:
            return Sequence(
                request,
                choice,
                BlockTable(self._scheduler.pool, self._scheduler.prefix_cache),
                arrival=next(self._arrivals),
                submitted_s=now,
                generated=generated,
                leader=leader,
            )

        sequences = make_sequences(request, make)
        self._live[request.request_id] = _LiveRequest(
            {sequence.choice: sequence for sequence in sequences}
        )
        for sequence in sequences:
            self._scheduler.add(sequence)

    def cancel(self, request_id: RequestId, choice: int | None = None) -> bool:
        """End a request, or one choice of it, and free its blocks; False when it has ended already
        (the cancel and the last token may cross).
        """
        live = self._live.get(request_id)
        if live is None:
            return False
        choices = list(live.sequences) if choice is None else [choice]
        found = [live.sequences[c] for c in choices if c in live.sequences]
        for sequence in found:
            self._end(sequence, RequestState.Cancelled)
        return bool(found)

    def step(self) -> StepOutput:
        """Run every request a little further.

        Raises what the backend raises; then nothing was committed, and nothing is lost to a
        restarted engine. A request whose own logits are unusable fails alone.
        """
        started_s = self._clock()
        batch = self._scheduler.schedule()
        if not batch.chunks:
            return StepOutput(stats=self.stats())
        batch, logits = run_within_memory(self._scheduler, self._runner, batch, self._counters)
        samples = self._sampler.sample(logits, batch.sample_rows())
        return self._commit(batch, samples, started_s)

    def close(self) -> None:
        """Free the model and the cache; for engines that do not end with their process."""
        self._runner.close()

    def check(self) -> None:
        """Assert the engine's invariants: no block is lost or shared wrongly, no request is
        forgotten.
        """
        self._scheduler.check()
        living = {id(s) for live in self._live.values() for s in live.sequences.values()}
        queued = {id(s) for s in (*self._scheduler.running, *self._scheduler.waiting)}
        assert living == queued
        assert all(live.sequences for live in self._live.values())

    def _commit(
        self, batch: Batch, samples: list[SampledToken | RocmForgeError], started_s: float
    ) -> StepOutput:
        results = dict(zip(batch.sampled, samples, strict=True))
        # Failures first: a request that fails emits nothing more, for none of its choices.
        failed = [
            self._fail(sequence, result)
            for sequence, result in results.items()
            if isinstance(result, RocmForgeError) and sequence.is_running
        ]
        started: list[RequestStarted] = []
        tokens: list[TokenOutput] = []
        for chunk in batch.chunks:
            sequence = chunk.sequence
            if not sequence.is_running:
                continue
            self._announce(sequence, started_s, started)
            self._scheduler.commit(chunk)
            result = results.get(sequence)
            if isinstance(result, SampledToken):
                tokens.append(self._emit(sequence, result))
        elapsed_s = self._clock() - started_s
        self._scheduler.budget.observe(batch.n_tokens, elapsed_s * 1000)
        self._counters.count(batch, len(tokens), elapsed_s)
        if self._check_invariants:
            self.check()
        return StepOutput(tuple(tokens), tuple(started), tuple(failed), self.stats())

    def _announce(self, sequence: Sequence, now_s: float, out: list[RequestStarted]) -> None:
        live = self._live[sequence.request.request_id]
        if not live.is_announced:
            live.is_announced = True
            out.append(
                RequestStarted(
                    sequence.request.request_id,
                    sequence.num_cached_tokens,
                    now_s - sequence.submitted_s,
                )
            )

    def _emit(self, sequence: Sequence, sampled: SampledToken) -> TokenOutput:
        sequence.generated.append(sampled.token_id)
        reason = sequence.finish_reason(self._n_ctx)
        if reason is not None:
            self._end(sequence, RequestState.Completed)
        return TokenOutput(
            sequence.request.request_id,
            sequence.choice,
            len(sequence.generated) - 1,
            sampled.token_id,
            reason,
            sampled.logprob,
            sampled.top_logprobs,
        )

    def _fail(self, sequence: Sequence, error: RocmForgeError) -> RequestFailed:
        request_id = sequence.request.request_id
        for other in list(self._live[request_id].sequences.values()):
            self._end(other, RequestState.Failed)
        return RequestFailed(request_id, WireError.of(error))

    def _end(self, sequence: Sequence, state: RequestState) -> None:
        self._scheduler.remove(sequence, state)
        live = self._live[sequence.request.request_id]
        del live.sequences[sequence.choice]
        if not live.sequences:
            del self._live[sequence.request.request_id]
