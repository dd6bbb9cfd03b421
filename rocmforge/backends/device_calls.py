"""The calls that every step makes to its device: allocate, launch, copy back.

`DeviceCalls` is the seam between a backend and its device's library: errors of the library become
HipErrors here, calls are counted here, and faults are injected here (faulty.py).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypeVar

from rocmforge.backends.ops import StepInputs
from rocmforge.errors import HipError, HipErrorKind

T = TypeVar("T")


class DeviceOperation(StrEnum):
    """What a device is asked for."""

    allocate = "allocate"
    copy = "copy"
    launch = "launch"


class DeviceCalls(Protocol):
    """Makes calls. n_calls: made since the start, n_faults: how many of them were made to fail."""

    n_calls: int
    n_faults: int

    def call(
        self, operation: DeviceOperation, work: Callable[[], T], step: StepInputs | None = None
    ) -> T:
        """Do `work`; `step` is what a launch runs. Raises HipError where the device fails."""
        ...


class DirectCalls:
    """Calls that go straight to the device."""

    def __init__(self) -> None:
        self.n_calls = 0
        self.n_faults = 0

    def call(
        self, operation: DeviceOperation, work: Callable[[], T], step: StepInputs | None = None
    ) -> T:
        """See DeviceCalls."""
        self.n_calls += 1
        try:
            return work()
        except MemoryError as error:
            raise HipError(
                f"the device has no memory left to {operation}", kind=HipErrorKind.OutOfMemory
            ) from error
