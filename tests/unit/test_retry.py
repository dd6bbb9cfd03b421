"""Delays for any attempt, and which errors are tried again how often."""

from __future__ import annotations

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from rocmforge import errors as e
from rocmforge.errors import HipError, HipErrorKind, InvalidConfiguration
from rocmforge.retry import Retrier, RetryConfig, retry_operation

PLAIN = RetryConfig(jitter=False)
RETRIED = {
    HipErrorKind.OutOfMemory,
    HipErrorKind.CopyFailed,
    HipErrorKind.LaunchRefused,
    HipErrorKind.QueryFailed,
    HipErrorKind.DeviceError,
}


class Counts:
    """A RetryObserver that writes down."""

    def __init__(self):
        self.seen = []

    def record_gpu_retry_attempt(self, operation, n):
        self.seen.append(("attempt", operation, n))

    def record_gpu_retry_success(self, operation, n):
        self.seen.append(("success", operation, n))

    def record_gpu_retry_failed(self, operation, n):
        self.seen.append(("failed", operation, n))


def failing(n_times, make_error=lambda: HipError("busy", kind=HipErrorKind.QueryFailed)):
    """An operation that fails n times and then answers 42; its calls."""
    calls = []

    def operation():
        calls.append(1)
        if len(calls) <= n_times:
            raise make_error()
        return 42

    return operation, calls


def retrier(config=PLAIN):
    counts, slept = Counts(), []
    return Retrier(config, counts, slept.append), counts, slept


def test_defaults_are_those_of_the_contract():
    config = RetryConfig()
    assert (config.max_retries, config.initial_delay_ms, config.backoff_multiplier) == (3, 10, 2)
    assert (config.max_delay_ms, config.jitter) == (1000, True)
    assert RetryConfig.no_retry().max_retries == 0


def test_the_builder_changes_one_value_each():
    config = (
        RetryConfig.no_retry()
        .with_max_retries(5)
        .with_initial_delay_ms(1.5)
        .with_backoff_multiplier(3.0)
        .with_max_delay_ms(9.0)
        .with_jitter(False)
    )
    assert config == RetryConfig(
        max_retries=5, initial_delay_ms=1.5, backoff_multiplier=3, max_delay_ms=9, jitter=False
    )


def test_delays_double_up_to_the_cap():
    delays = [PLAIN.delay_for_attempt(n) for n in range(9)]
    assert delays == [10, 20, 40, 80, 160, 320, 640, 1000, 1000]
    assert all(isinstance(delay, float) for delay in delays)


@pytest.mark.parametrize("attempt", [2000, 10**9, 10**400])
def test_no_attempt_overflows(attempt):
    assert PLAIN.delay_for_attempt(attempt) == 1000
    assert PLAIN.with_backoff_multiplier(1.0).delay_for_attempt(attempt) == 10
    assert PLAIN.with_initial_delay_ms(0.0).delay_for_attempt(attempt) == 0
    assert 875 <= RetryConfig().delay_for_attempt(attempt) <= 1125


def test_jitter_is_centred_on_the_delay():
    delays = [RetryConfig().delay_for_attempt(0) for _ in range(4000)]
    assert 8.75 <= min(delays) < 8.9
    assert 11.1 < max(delays) <= 11.25
    assert sum(delays) / len(delays) == pytest.approx(10, abs=0.1)


@given(
    attempt=st.integers(0, 10**6),
    initial=st.floats(0, 1e6),
    multiplier=st.floats(1, 1e6),
    cap=st.floats(0, 1e6),
)
def test_a_delay_is_never_negative_and_never_far_above_the_cap(attempt, initial, multiplier, cap):
    config = RetryConfig(initial_delay_ms=initial, backoff_multiplier=multiplier, max_delay_ms=cap)
    assert 0 <= config.delay_for_attempt(attempt) <= cap * 1.125


@pytest.mark.parametrize(
    "values",
    [
        {"max_retries": -1},
        {"initial_delay_ms": -1.0},
        {"initial_delay_ms": float("nan")},
        {"max_delay_ms": float("inf")},
        {"max_delay_ms": -0.5},
        {"backoff_multiplier": 0.5},
        {"backoff_multiplier": float("nan")},
    ],
)
def test_impossible_values(values):
    with pytest.raises(InvalidConfiguration):
        RetryConfig(**values)
    with pytest.raises(InvalidConfiguration):
        RetryConfig().delay_for_attempt(-1)


def test_success_after_two_retries():
    retry, counts, slept = retrier()
    operation, calls = failing(2)
    with structlog.testing.capture_logs() as logs:
        assert retry.retry_operation(operation, "copy") == 42
    assert len(calls) == 3
    assert slept == [0.010, 0.020]
    assert counts.seen == [("attempt", "copy", 1), ("attempt", "copy", 2), ("success", "copy", 2)]
    assert logs == [
        {
            "event": "gpu_retry",
            "log_level": "warning",
            "context": "copy",
            "attempt": attempt,
            "delay_ms": delay_ms,
            "error": "busy",
        }
        for attempt, delay_ms in ((1, 10.0), (2, 20.0))
    ] + [{"event": "gpu_retry_succeeded", "log_level": "info", "context": "copy", "attempt": 2}]


def test_the_last_error_is_raised_when_the_retries_are_used_up():
    retry, counts, slept = retrier()
    numbers = iter(range(10))
    operation, calls = failing(9, lambda: HipError(f"error {next(numbers)}"))
    with (
        structlog.testing.capture_logs() as logs,
        pytest.raises(HipError, match="error 3"),
    ):
        retry.retry_operation(operation, "launch")
    assert (len(calls), slept) == (4, [0.010, 0.020, 0.040])
    assert counts.seen[-1] == ("failed", "launch", 3)
    assert logs[-1] == {
        "event": "gpu_retry_gave_up",
        "log_level": "error",
        "context": "launch",
        "attempt": 3,
        "error": "error 3",
    }


def test_without_retries_one_call_is_made():
    retry, counts, slept = retrier(RetryConfig.no_retry())
    operation, calls = failing(1)
    with pytest.raises(HipError):
        retry.retry_operation(operation, "launch")
    assert (len(calls), slept, counts.seen) == (1, [], [("failed", "launch", 0)])


@pytest.mark.parametrize("kind", list(HipErrorKind))
def test_which_device_errors_are_retried(kind):
    retry, counts, _ = retrier()
    operation, calls = failing(1, lambda: HipError("x", kind=kind))
    if kind in RETRIED:
        assert retry.retry_operation(operation, "launch") == 42
        return
    with pytest.raises(HipError):
        retry.retry_operation(operation, "launch")
    assert (len(calls), counts.seen) == (1, [])


@pytest.mark.parametrize(
    "make_error",
    [
        lambda: e.BackendInitializationFailed("x"),
        lambda: e.GpuDeviceNotFound("x"),
        lambda: e.InferenceFailed("x"),
        lambda: ValueError("a defect"),
    ],
)
def test_other_errors_pass_at_once(make_error):
    operation, calls = failing(1, make_error)
    with pytest.raises(type(make_error())):
        retry_operation(operation, "x", PLAIN)
    assert len(calls) == 1


@pytest.mark.parametrize("cls", [e.GpuMemoryAllocationFailed, e.GpuKernelLaunchFailed])
def test_memory_is_freed_before_each_retry(cls):
    retry, _, slept = retrier()
    operation, _ = failing(2, lambda: cls("full"))
    freed = []
    assert retry.retry_operation(operation, "allocate", freed.append) == 42
    assert [type(error) for error in freed] == [cls, cls]
    assert len(slept) == 2


def test_the_module_s_own_function_retries_too():
    operation, calls = failing(1)
    config = RetryConfig(initial_delay_ms=0.0)
    assert (retry_operation(operation, "x", config), len(calls)) == (42, 2)
