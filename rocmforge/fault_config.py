"""Which device faults to inject, for chaos tests: `ROCMFORGE_FAULTS_PLAN`.

    allocate:out_of_memory@p=0.01; copy:copy_failed@n=10x2; launch:device_lost@n=500

A rule is OPERATION:KIND@WHEN. OPERATION: allocate, copy, launch or any. KIND: a HipErrorKind, or
`hang` or `abort` (of the engine process). WHEN: `n=N` for the N-th call of that operation, `n=NxM`
for M calls from the N-th on, `p=P` for each call with probability P, `token=ID` for each launch of
a step that holds this token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rocmforge.errors import HipErrorKind, InvalidConfiguration

FAULT_OPERATIONS: Final = ("allocate", "copy", "launch", "any")
# What happens to the process itself instead of an error.
HANG: Final = "hang"
ABORT: Final = "abort"
_KINDS: Final = (*(str(kind) for kind in HipErrorKind), HANG, ABORT)
_RULE: Final = re.compile(
    r"(?P<operation>[a-z]+):(?P<kind>[a-z_]+)@"
    r"(?:n=(?P<first>\d+)(?:x(?P<times>\d+))?|p=(?P<p>[0-9.]+)|token=(?P<token>\d+))"
)


@dataclass(frozen=True, kw_only=True)
class FaultRule:
    """One rule of a plan; exactly one of first_call, probability and token_id is set.

    first_call counts from 1; the rule holds for n_calls calls from there.
    """

    operation: str
    kind: str
    first_call: int | None = None
    n_calls: int = 1
    probability: float | None = None
    token_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class FaultConfig:
    """Faults to inject into the device; an empty plan injects none.

    seed: of the rules with a probability.
    """

    plan: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        parse_plan(self.plan)


def parse_plan(text: str) -> tuple[FaultRule, ...]:
    """The rules of a plan. Raises InvalidConfiguration naming the rule that makes no sense."""
    return tuple(_parse_rule(rule.strip()) for rule in text.split(";") if rule.strip())


def _parse_rule(text: str) -> FaultRule:
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidConfiguration(
            f"the fault rule {text!r} is not OPERATION:KIND@n=N, @n=NxTIMES, @p=P or @token=ID"
        )
    operation, kind = match["operation"], match["kind"]
    if operation not in FAULT_OPERATIONS:
        raise InvalidConfiguration(
            f"the fault rule {text!r} names no operation: {', '.join(FAULT_OPERATIONS)}"
        )
    if kind not in _KINDS:
        raise InvalidConfiguration(f"the fault rule {text!r} names no kind: {', '.join(_KINDS)}")
    if match["p"] is not None:
        return FaultRule(operation=operation, kind=kind, probability=_probability(match["p"], text))
    if match["token"] is not None:
        if operation not in ("launch", "any"):
            raise InvalidConfiguration(f"the fault rule {text!r}: only launches have tokens")
        return FaultRule(operation=operation, kind=kind, token_id=int(match["token"]))
    first, times = int(match["first"]), int(match["times"] or 1)
    if first < 1 or times < 1:
        raise InvalidConfiguration(f"the fault rule {text!r}: calls count from 1")
    return FaultRule(operation=operation, kind=kind, first_call=first, n_calls=times)


def _probability(text: str, rule: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InvalidConfiguration(f"the fault rule {rule!r}: {text} is no number") from error
    if not 0 <= value <= 1:
        raise InvalidConfiguration(f"the fault rule {rule!r}: a probability is between 0 and 1")
    return value
