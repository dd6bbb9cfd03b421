"""What all backends share: a device whose every allocation, launch and copy is retried.

device = RetryingDevice(DirectCalls(), Retrier(RetryConfig()))
buffer = device.allocate_buffer_with_retry(1024)
device.launch_with_retry(lambda: kernel(buffer.data))
data = device.copy_from_device_with_retry(buffer)
device.release(buffer)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rocmforge.backends.device_calls import DeviceCalls, DeviceOperation, DirectCalls
from rocmforge.backends.ops import StepInputs
from rocmforge.errors import HipError, HipErrorKind, RocmForgeError
from rocmforge.retry import Retrier, RetryConfig

T = TypeVar("T")


class DeviceBuffer:
    """`n_bytes` of the device's memory; `data` [n_bytes] is its content, here in the host's."""

    def __init__(self, memory: npt.NDArray[np.uint8], n_bytes: int) -> None:
        self.memory = memory
        self.data = memory[:n_bytes]


class DeviceMemory:
    """Keeps released buffers by size (powers of two): a step that runs again allocates nothing."""

    def __init__(self) -> None:
        self._free: dict[int, list[npt.NDArray[np.uint8]]] = {}

    def take(self, n_bytes: int) -> DeviceBuffer:
        """A buffer with any content. Raises MemoryError."""
        size = 1 << max(6, (n_bytes - 1).bit_length())
        kept = self._free.get(size)
        return DeviceBuffer(kept.pop() if kept else np.empty(size, np.uint8), n_bytes)

    def give_back(self, buffer: DeviceBuffer) -> None:
        """Keep it for the next that asks for its size."""
        self._free.setdefault(buffer.memory.nbytes, []).append(buffer.memory)

    def trim(self) -> int:
        """Free all that nobody uses; how many bytes."""
        n_bytes = sum(size * len(kept) for size, kept in self._free.items())
        self._free = {}
        return n_bytes


class RetryingDevice:
    """Device calls with retries, and the memory that is freed before an allocation is retried."""

    def __init__(self, calls: DeviceCalls | None = None, retrier: Retrier | None = None) -> None:
        self.calls = calls or DirectCalls()
        self._retrier = retrier or Retrier(RetryConfig())
        self._memory = DeviceMemory()
        self._free_more: Callable[[], object] | None = None

    def allocate_buffer_with_retry(self, size: int) -> DeviceBuffer:
        """A buffer of `size` bytes with any content. Raises HipError."""
        return self.allocate_with_retry(lambda: self._memory.take(size), "allocate_buffer")

    def allocate_with_retry(self, allocate: Callable[[], T], context: str) -> T:
        """What `allocate` gives; between its tries memory is freed. Raises HipError."""
        return self._retrier.retry_operation(
            lambda: self.calls.call(DeviceOperation.allocate, allocate), context, self._free_memory
        )

    def copy_from_device_with_retry(self, buffer: DeviceBuffer) -> npt.NDArray[np.uint8]:
        """The buffer's content, uint8 [n_bytes]. On a CPU that is the buffer itself: valid until it
        is released. Raises HipError.
        """
        return self._retrier.retry_operation(
            lambda: self.calls.call(DeviceOperation.copy, lambda: buffer.data), "copy_from_device"
        )

    def launch_with_retry(self, launch: Callable[[], None], step: StepInputs | None = None) -> None:
        """Run kernels. A step may be run again: it writes the same keys and values to the same
        slots, and nothing is committed before its logits are sampled. Raises HipError.
        """
        self._retrier.retry_operation(
            lambda: self.calls.call(DeviceOperation.launch, launch, step), "launch"
        )

    def release(self, buffer: DeviceBuffer) -> None:
        """The buffer's content is not needed any more."""
        self._memory.give_back(buffer)

    def free_memory_by(self, free: Callable[[], object]) -> None:
        """Call `free` too before an allocation is retried, in place of the one before."""
        self._free_more = free

    def _free_memory(self, error: RocmForgeError) -> None:
        if isinstance(error, HipError) and error.kind is not HipErrorKind.OutOfMemory:
            return
        if self._free_more is not None:
            self._free_more()
        self._memory.trim()
