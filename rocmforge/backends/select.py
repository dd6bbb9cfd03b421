"""Which backend serves, and why."""

from __future__ import annotations

from rocmforge import _native
from rocmforge.backends.cpu import CpuBackend
from rocmforge.backends.faulty import FaultyCalls
from rocmforge.backends.ops import Backend
from rocmforge.backends.retrying_device import RetryingDevice
from rocmforge.errors import BackendInitializationFailed, GpuDeviceNotFound
from rocmforge.observe.log import get_logger

_log = get_logger(__name__)


def available_isas() -> list[str]:
    """The instruction sets of this machine that the core has kernels for, best first."""
    return list(_native.available_isas())


def choose(
    device: str, isa: str, n_threads: int | None, retrying: RetryingDevice | None = None
) -> tuple[Backend, str]:
    """The backend for `device` (auto or cpu) and the reason, for the log and /props. `retrying`
    makes the device's calls; a device with injected faults says so in its name.

    Each ISA's kernels are compared with the scalar ones first; one that differs is not used, with
    a warning. Raises GpuDeviceNotFound for a device that cannot be had, BackendInitializationFailed
    for an ISA that this machine lacks or whose kernels fail the comparison.
    """
    if device not in ("auto", "cpu"):
        raise GpuDeviceNotFound(f"this build serves on the CPU only; {device!r} is not available")
    chosen, doubts = _sound_isa(isa)
    reason = "no GPU backend in this build" if device == "auto" else "asked for"
    backend = CpuBackend(n_threads, chosen, retrying)
    if retrying is not None and isinstance(retrying.calls, FaultyCalls):
        backend.device += "+faults"
    return backend, "; ".join([reason, *doubts])


def _sound_isa(wanted: str) -> tuple[str, list[str]]:
    """The first usable ISA, and what was wrong with those before it."""
    doubts: list[str] = []
    for isa in available_isas() if wanted == "auto" else [wanted]:
        if isa not in available_isas():
            raise BackendInitializationFailed(
                f"this machine has no {isa}; choose one of {', '.join(available_isas())} or auto"
            )
        failing = _native.failing_kernels(isa)
        if not failing:
            return isa, doubts
        doubts.append(f"{isa} kernels fail their self-test: {failing}")
        _log.warning("isa_refused", isa=isa, failing=failing)
    raise BackendInitializationFailed(
        f"no kernels can be trusted on this machine ({'; '.join(doubts)}); try isa = auto"
    )
