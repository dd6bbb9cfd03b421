"""What the engine counts, step by step, for the server's metrics."""

from __future__ import annotations

from rocmforge.cache.prefix_cache import PrefixStats
from rocmforge.engine.batch import Batch
from rocmforge.engine.engine_device import EngineDevice
from rocmforge.engine.scheduler import Scheduler
from rocmforge.wire.protocol import EngineStats


class StepCounters:
    """Totals since the engine's start; `device` counts its own calls."""

    def __init__(self, device: EngineDevice | None = None) -> None:
        self._device = device
        self._memory_recoveries = 0
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._steps = 0
        self._last_step_ms = 0.0
        self._last_step_tokens = 0
        self._prefill_s = 0.0
        self._decode_s = 0.0

    def count(self, batch: Batch, n_generated: int, elapsed_s: float) -> None:
        """Count one step. Its time is shared out by tokens between prompts and decoding."""
        n_tokens = batch.n_tokens
        n_prefill = n_tokens - batch.n_decode_tokens
        self._steps += 1
        self._prompt_tokens += n_prefill
        self._generated_tokens += n_generated
        self._last_step_ms = elapsed_s * 1000
        self._last_step_tokens = n_tokens
        prefill_s = elapsed_s * n_prefill / max(1, n_tokens)
        self._prefill_s += prefill_s
        self._decode_s += elapsed_s - prefill_s

    def memory_recovered(self) -> None:
        """A step found no memory; some was freed and a smaller one is tried."""
        self._memory_recoveries += 1

    def stats(self, scheduler: Scheduler) -> EngineStats:
        """These totals with the scheduler's and the caches' numbers of now."""
        cache = scheduler.prefix_cache
        prefix = PrefixStats() if cache is None else cache.stats
        device = self._device
        return EngineStats(
            n_running=len(scheduler.running),
            n_waiting=len(scheduler.waiting),
            blocks_used=scheduler.pool.n_used,
            blocks_cached=scheduler.pool.n_idle,
            blocks_total=scheduler.pool.n_blocks,
            prompt_tokens_total=self._prompt_tokens,
            generated_tokens_total=self._generated_tokens,
            prefix_queries_total=prefix.queries,
            prefix_hits_total=prefix.hits,
            prefix_hit_tokens_total=prefix.hit_tokens,
            preemptions_total=scheduler.n_preemptions,
            steps_total=self._steps,
            last_step_ms=self._last_step_ms,
            last_step_tokens=self._last_step_tokens,
            prefill_s_total=self._prefill_s,
            decode_s_total=self._decode_s,
            device_calls_total=device.retrying.calls.n_calls if device else 0,
            faults_injected_total=device.retrying.calls.n_faults if device else 0,
            memory_recoveries_total=self._memory_recoveries,
            retries=device.tally.counts() if device else (),
        )
