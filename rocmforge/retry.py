"""Device operations that failed for a moment are tried again.

Waiting helps a device that is busy, not one that is full: before an allocation is retried, the
caller's `before_retry` frees memory. Sticky errors have poisoned the process and are raised at
once, as permanent ones are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from rocmforge.errors import (
    BackendError,
    GpuKernelLaunchFailed,
    GpuMemoryAllocationFailed,
    HipError,
    RocmForgeError,
)
from rocmforge.observe.log import get_logger
from rocmforge.retry_config import RetryConfig as RetryConfig

T = TypeVar("T")
_log = get_logger(__name__)


class RetryObserver(Protocol):
    """Who counts. `operation` is the context given to `retry_operation`."""

    def record_gpu_retry_attempt(self, operation: str, n: int) -> None:
        """Retry number n (from 1) is about to be made."""
        ...

    def record_gpu_retry_success(self, operation: str, n: int) -> None:
        """The operation succeeded after n retries (never 0)."""
        ...

    def record_gpu_retry_failed(self, operation: str, n: int) -> None:
        """The operation was given up after n retries."""
        ...


class Unobserved:
    """A RetryObserver that counts nothing."""

    def record_gpu_retry_attempt(self, operation: str, n: int) -> None:
        """See RetryObserver."""

    def record_gpu_retry_success(self, operation: str, n: int) -> None:
        """See RetryObserver."""

    def record_gpu_retry_failed(self, operation: str, n: int) -> None:
        """See RetryObserver."""


class Retrier:
    """Retries by one configuration, counted by one observer; `sleep` gets seconds."""

    def __init__(
        self,
        config: RetryConfig,
        observer: RetryObserver | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config = config
        self._observer = observer or Unobserved()
        self._sleep = sleep

    def retry_operation(
        self,
        operation: Callable[[], T],
        context: str,
        before_retry: Callable[[RocmForgeError], None] | None = None,
    ) -> T:
        """The operation's result, after at most max_retries + 1 calls.

        Raises the last error when they are used up, and any error that `is_retryable` denies at
        once. `before_retry(error)` is called before each further call.
        """
        n_retries = 0
        while True:
            try:
                result = operation()
            except BackendError as error:
                if not is_retryable(error):
                    raise
                if n_retries == self.config.max_retries:
                    self._give_up(context, n_retries, error)
                    raise
                n_retries += 1
                self._wait(context, n_retries, error)
                if before_retry is not None:
                    before_retry(error)
            else:
                if n_retries:
                    self._observer.record_gpu_retry_success(context, n_retries)
                    _log.info("gpu_retry_succeeded", context=context, attempt=n_retries)
                return result

    def _wait(self, context: str, n: int, error: RocmForgeError) -> None:
        self._observer.record_gpu_retry_attempt(context, n)
        delay_ms = self.config.delay_for_attempt(n - 1)
        _log.warning(
            "gpu_retry",
            context=context,
            attempt=n,
            delay_ms=round(delay_ms, 3),
            error=error.message,
        )
        self._sleep(delay_ms / 1000)

    def _give_up(self, context: str, n: int, error: RocmForgeError) -> None:
        self._observer.record_gpu_retry_failed(context, n)
        _log.error("gpu_retry_gave_up", context=context, attempt=n, error=error.message)


def is_retryable(error: RocmForgeError) -> bool:
    """Whether the same call may succeed in this process."""
    if isinstance(error, HipError):
        return error.is_recoverable() and not error.is_sticky()
    return isinstance(error, GpuMemoryAllocationFailed | GpuKernelLaunchFailed)


def retry_operation(
    operation: Callable[[], T], context: str, config: RetryConfig | None = None
) -> T:
    """`Retrier.retry_operation` by `config` (default: RetryConfig()), not counted."""
    return Retrier(config or RetryConfig()).retry_operation(operation, context)
