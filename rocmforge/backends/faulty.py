"""A device that fails by a plan (fault_config.py): chaos tests on machines whose devices do not."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from rocmforge.backends.device_calls import DeviceCalls, DeviceOperation
from rocmforge.backends.ops import StepInputs
from rocmforge.errors import HipError, HipErrorKind
from rocmforge.fault_config import ABORT, HANG, FaultRule
from rocmforge.observe.log import get_logger

T = TypeVar("T")
_log = get_logger(__name__)


class FaultyCalls:
    """DeviceCalls that fail where a rule says so, before anything is done."""

    def __init__(self, inner: DeviceCalls, rules: Sequence[FaultRule], seed: int = 0) -> None:
        self._inner = inner
        self._rules = tuple(rules)
        self._random = random.Random(seed)
        self._n_seen: Counter[str] = Counter()
        self.n_faults = 0
        self.n_calls = 0

    def call(
        self, operation: DeviceOperation, work: Callable[[], T], step: StepInputs | None = None
    ) -> T:
        """See DeviceCalls."""
        self.n_calls += 1
        for name in (str(operation), "any"):
            self._n_seen[name] += 1
        for rule in self._rules:
            if rule.operation in (operation, "any") and self._holds(rule, step):
                self._fail(rule, operation)
        return self._inner.call(operation, work, step)

    def _holds(self, rule: FaultRule, step: StepInputs | None) -> bool:
        if rule.probability is not None:
            return self._random.random() < rule.probability
        if rule.token_id is not None:
            return step is not None and rule.token_id in step.token_ids
        assert rule.first_call is not None, "a rule says when"
        return 0 <= self._n_seen[rule.operation] - rule.first_call < rule.n_calls

    def _fail(self, rule: FaultRule, operation: DeviceOperation) -> None:
        self.n_faults += 1
        _log.warning("fault_injected", operation=str(operation), kind=rule.kind, call=self.n_calls)
        if rule.kind == ABORT:
            os.abort()
        while rule.kind == HANG:
            time.sleep(1.0)
        raise HipError(f"injected into {operation}: {rule.kind}", kind=HipErrorKind(rule.kind))
