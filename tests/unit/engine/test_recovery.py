"""When the device has no memory for a step."""

from __future__ import annotations

import pytest

from rocmforge.engine.recovery import MAX_ATTEMPTS
from rocmforge.errors import GpuMemoryAllocationFailed, HipError, HipErrorKind
from tests.support.tiny_engine import Collected, answer_alone, drain, hash_engine, request


def out_of_memory_above(n_tokens, make_error):
    """Raises a new error each time: one that lives on would keep the engine by its traceback."""

    def check(plan):
        if plan.n_tokens > n_tokens:
            raise make_error()

    return check


@pytest.mark.parametrize(
    "make_error",
    [
        lambda: GpuMemoryAllocationFailed("no memory"),
        lambda: HipError("no memory", kind=HipErrorKind.OutOfMemory),
        lambda: MemoryError("no memory"),
    ],
    ids=["GpuMemoryAllocationFailed", "HipError", "MemoryError"],
)
def test_a_smaller_step_is_run_and_every_answer_stays_the_same(make_error):
    engine, model = hash_engine(step_tokens=64)
    engine.submit(request("before", prompt=range(30)))
    drain(engine)
    assert engine.stats().blocks_cached > 0
    model.before_run = out_of_memory_above(20, make_error)
    for i in range(8):
        engine.submit(request(str(i), prompt=range(i, i + 30)))
    collected = drain(engine)
    assert engine.stats().preemptions_total > 0
    for i in range(8):
        alone = answer_alone(hash_engine, request("x", prompt=range(i, i + 30)))
        assert collected.answers[str(i), 0] == alone[0]


def test_idle_prefixes_are_forgotten():
    engine, model = hash_engine()
    engine.submit(request("one", prompt=range(30)))
    drain(engine)
    engine.submit(request("two", prompt=range(40, 50)))
    model.before_run = out_of_memory_above(5, lambda: GpuMemoryAllocationFailed("no memory"))
    collected = Collected()
    collected.take(engine.step())
    assert engine.stats().blocks_cached == 0
    drain(engine, collected)


def test_gives_up_when_even_the_smallest_step_fails():
    engine, model = hash_engine()
    engine.submit(request(prompt=range(30)))
    model.before_run = out_of_memory_above(0, lambda: GpuMemoryAllocationFailed("no memory"))
    with pytest.raises(GpuMemoryAllocationFailed):
        engine.step()
    assert len(model.plans) == MAX_ATTEMPTS
    engine.check()
    model.before_run = None
    assert drain(engine).answers["r", 0] == answer_alone(hash_engine, request(prompt=range(30)))[0]


@pytest.mark.parametrize("kind", [k for k in HipErrorKind if k is not HipErrorKind.OutOfMemory])
def test_other_device_errors_are_not_tried_again(kind):
    engine, model = hash_engine()
    engine.submit(request())
    model.before_run = out_of_memory_above(0, lambda: HipError("broken", kind=kind))
    with pytest.raises(HipError):
        engine.step()
    assert len(model.plans) == 1
