"""Device calls: counted, made to fail by a plan, retried; memory is freed before that."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rocmforge.backends.device_calls import DeviceOperation, DirectCalls
from rocmforge.backends.faulty import FaultyCalls
from rocmforge.backends.retrying_device import RetryingDevice
from rocmforge.errors import HipError, HipErrorKind
from rocmforge.fault_config import parse_plan
from rocmforge.retry import Retrier, RetryConfig

AT_ONCE = RetryConfig(initial_delay_ms=0.0)


def device(plan="", config=AT_ONCE, seed=0):
    return RetryingDevice(FaultyCalls(DirectCalls(), parse_plan(plan), seed), Retrier(config))


def faults(calls, operation, n, step=None):
    """Which of the next n calls fail, from 0."""
    failed = []
    for i in range(n):
        try:
            calls.call(operation, lambda: None, step)
        except HipError:
            failed.append(i)
    return failed


def faulty(plan, seed=0):
    return FaultyCalls(DirectCalls(), parse_plan(plan), seed)


def test_a_buffer_there_and_back():
    dev = device()
    buffer = dev.allocate_buffer_with_retry(100)
    assert buffer.data.shape == (100,)
    dev.launch_with_retry(lambda: buffer.data.fill(7))
    assert dev.copy_from_device_with_retry(buffer).tolist() == [7] * 100
    assert dev.calls.n_calls == 3
    memory = buffer.memory
    dev.release(buffer)
    assert dev.allocate_buffer_with_retry(120).memory is memory
    assert dev.allocate_buffer_with_retry(120).memory is not memory


@pytest.mark.parametrize("kind", ["out_of_memory", "copy_failed", "device_error", "query_failed"])
def test_every_operation_is_retried(kind):
    dev = device(f"any:{kind}@n=1x3")
    assert dev.allocate_buffer_with_retry(8).data.nbytes == 8
    dev = device(f"copy:{kind}@n=1x3")
    buffer = dev.allocate_buffer_with_retry(8)
    assert dev.copy_from_device_with_retry(buffer).nbytes == 8
    dev = device(f"launch:{kind}@n=1x3")
    ran = []
    dev.launch_with_retry(lambda: ran.append(1))
    # A fault comes before the work, so that the work is done once.
    assert ran == [1]
    assert (dev.calls.n_calls, dev.calls.n_faults) == (4, 3)


@pytest.mark.parametrize("kind", ["device_lost", "illegal_access", "launch_failed"])
def test_sticky_errors_are_not_retried(kind):
    dev = device(f"launch:{kind}@n=1")
    with pytest.raises(HipError) as caught:
        dev.launch_with_retry(lambda: None)
    assert caught.value.kind == kind
    assert dev.calls.n_calls == 1


def test_memory_is_freed_before_an_allocation_is_retried():
    dev = device("allocate:out_of_memory@n=2")
    kept = dev.allocate_buffer_with_retry(8)
    memory = kept.memory
    dev.release(kept)
    freed = []
    dev.free_memory_by(lambda: freed.append(1))
    assert dev.allocate_buffer_with_retry(8).memory is not memory
    assert freed == [1]


def test_nothing_is_freed_for_other_faults():
    dev = device("any:device_error@n=1; copy:out_of_memory@n=1")
    dev.free_memory_by(lambda: pytest.fail("nobody needs memory"))
    dev.copy_from_device_with_retry(dev.allocate_buffer_with_retry(8))


def test_a_real_lack_of_memory_is_a_device_error():
    def full():
        raise MemoryError

    with pytest.raises(HipError) as caught:
        DirectCalls().call(DeviceOperation.allocate, full)
    assert caught.value.kind is HipErrorKind.OutOfMemory
    dev, freed = RetryingDevice(None, Retrier(AT_ONCE)), []
    dev.free_memory_by(lambda: freed.append(1))
    with pytest.raises(HipError):
        dev.allocate_with_retry(full, "allocate")
    assert (len(freed), dev.calls.n_calls) == (3, 4)


def test_calls_are_counted_by_operation_and_together():
    calls = faulty("copy:copy_failed@n=2x2; any:device_error@n=6")
    assert faults(calls, DeviceOperation.launch, 2) == []
    assert faults(calls, DeviceOperation.copy, 4) == [1, 2, 3]
    assert faults(calls, DeviceOperation.copy, 4) == []


def test_probability_is_seeded():
    calls = [faulty("any:device_error@p=0.1", seed) for seed in (1, 1, 2)]
    one, again, other = (faults(c, DeviceOperation.launch, 1000) for c in calls)
    assert one == again != other
    assert 60 < len(one) < 140
    assert calls[0].n_faults == len(one)


def test_a_token_chooses_its_steps():
    calls = faulty("launch:device_error@token=5")
    step = SimpleNamespace(token_ids=np.array([4, 5], np.int32))
    other = SimpleNamespace(token_ids=np.array([4, 6], np.int32))
    assert faults(calls, DeviceOperation.launch, 2, step) == [0, 1]
    assert faults(calls, DeviceOperation.launch, 2, other) == []
    assert faults(calls, DeviceOperation.copy, 2) == []
