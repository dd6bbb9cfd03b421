"""Fault plans: what they mean, and which make no sense."""

from __future__ import annotations

import pytest

from rocmforge.config import load_settings
from rocmforge.errors import InvalidConfiguration
from rocmforge.fault_config import FaultConfig, FaultRule, parse_plan


def test_a_plan_is_a_list_of_rules():
    text = (
        "allocate:out_of_memory@p=0.01; copy:copy_failed@n=10x2;launch:hang@n=5; any:abort@token=7;"
    )
    assert parse_plan(text) == (
        FaultRule(operation="allocate", kind="out_of_memory", probability=0.01),
        FaultRule(operation="copy", kind="copy_failed", first_call=10, n_calls=2),
        FaultRule(operation="launch", kind="hang", first_call=5),
        FaultRule(operation="any", kind="abort", token_id=7),
    )
    assert parse_plan("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "launch",
        "launch:device_lost",
        "launch:device_lost@n=",
        "launch:device_lost@n=0",
        "launch:device_lost@n=1x0",
        "launch:on_fire@n=1",
        "walk:device_lost@n=1",
        "launch:device_lost@p=1.5",
        "launch:device_lost@p=.",
        "copy:device_lost@token=1",
        "launch:device_lost@n=1 copy:hang@n=1",
    ],
)
def test_rules_that_make_no_sense_are_named(text):
    with pytest.raises(InvalidConfiguration, match=r"fault rule"):
        FaultConfig(plan=text)


def test_the_plan_comes_from_the_environment():
    settings = load_settings(
        environment={"ROCMFORGE_FAULTS_PLAN": "launch:hang@n=1", "ROCMFORGE_FAULTS_SEED": "3"}
    )
    assert settings.engine.faults == FaultConfig(plan="launch:hang@n=1", seed=3)
