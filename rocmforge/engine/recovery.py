"""The memory rung of the fault ladder: when a step finds no memory, free some and run less.

Blocks of the KV cache running out is the everyday case, and the scheduler's (idle prefix blocks go
first, then the youngest sequence). This is about the device's own memory: working buffers that
could not be had. Every sequence that is put back is computed again, to the same tokens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rocmforge.engine.batch import Batch
from rocmforge.engine.counters import StepCounters
from rocmforge.engine.scheduler import Scheduler
from rocmforge.engine.step_plan import StepRunner
from rocmforge.errors import BackendError, GpuMemoryAllocationFailed, HipError, HipErrorKind
from rocmforge.observe.log import get_logger

MAX_ATTEMPTS = 4
_log = get_logger(__name__)


def run_within_memory(
    scheduler: Scheduler, runner: StepRunner, batch: Batch, counters: StepCounters
) -> tuple[Batch, npt.NDArray[np.float32]]:
    """Run `batch`, or a smaller one when memory runs out; what was run, and its logits [R, V].

    Raises the backend's error when even the smallest step finds no memory, and every other error as
    it is: the process that holds a failing device is replaced, not argued with.
    """
    attempt = 1
    while True:
        try:
            return batch, runner.run(batch.plan())
        except (BackendError, MemoryError) as error:
            if attempt == MAX_ATTEMPTS or not is_out_of_memory(error):
                raise
            n_freed, n_preempted = free_memory(scheduler, batch)
            counters.memory_recovered()
            _log.warning(
                "step_out_of_memory",
                attempt=attempt,
                error=str(error),
                blocks_freed=n_freed,
                preempted=n_preempted,
            )
        attempt += 1
        batch = scheduler.schedule()


def is_out_of_memory(error: BaseException) -> bool:
    """True when freeing memory may help."""
    if isinstance(error, HipError):
        return error.kind is HipErrorKind.OutOfMemory
    return isinstance(error, GpuMemoryAllocationFailed | MemoryError)


def free_memory(scheduler: Scheduler, batch: Batch) -> tuple[int, int]:
    """Forget idle prefixes, put the younger half of the running sequences back, and run at most
    half as many tokens as `batch` had; (blocks freed, sequences put back).
    """
    n_freed = 0 if scheduler.prefix_cache is None else scheduler.prefix_cache.clear()
    victims = scheduler.running[(len(scheduler.running) + 1) // 2 :]
    for sequence in reversed(victims):
        scheduler.preempt(sequence)
    scheduler.budget.limit_to(batch.n_tokens // 2)
    return n_freed, len(victims)
