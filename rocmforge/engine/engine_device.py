"""The device as an engine has it: its calls, their retries, and what is counted of both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rocmforge.backends.device_calls import DeviceCalls, DirectCalls
from rocmforge.backends.faulty import FaultyCalls
from rocmforge.backends.retrying_device import RetryingDevice
from rocmforge.config import EngineConfig
from rocmforge.engine.retry_tally import RetryTally
from rocmforge.fault_config import FaultConfig, parse_plan
from rocmforge.observe.log import get_logger
from rocmforge.retry import Retrier

# A wait must not look like a hang: the engine gives a sign of life this often.
_SLICE_S: Final = 0.1
_log = get_logger(__name__)


@dataclass(frozen=True)
class EngineDevice:
    """A device with retries, and who counts them."""

    retrying: RetryingDevice
    tally: RetryTally

    @classmethod
    def of(cls, config: EngineConfig, beat: Callable[[], None]) -> EngineDevice:
        """As `config` says; `beat()` is called while a retry waits."""
        tally = RetryTally()
        retrier = Retrier(config.retry_config, tally, lambda seconds: sleep_alive(seconds, beat))
        return cls(RetryingDevice(calls_with(config.faults), retrier), tally)


def calls_with(faults: FaultConfig) -> DeviceCalls:
    """Calls of the device, made to fail by the plan if there is one."""
    rules = parse_plan(faults.plan)
    if not rules:
        return DirectCalls()
    _log.warning("faults_injected", plan=faults.plan, seed=faults.seed)
    return FaultyCalls(DirectCalls(), rules, faults.seed)


def sleep_alive(seconds: float, beat: Callable[[], None]) -> None:
    """Sleep, giving signs of life."""
    while seconds > 0:
        time.sleep(min(seconds, _SLICE_S))
        beat()
        seconds -= _SLICE_S
