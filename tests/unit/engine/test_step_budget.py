"""The step's token limit follows the measured speed."""

from __future__ import annotations

import pytest

from rocmforge.engine.step_budget import StepBudget


def run(budget, ms_per_token, n_steps, fixed_ms=0.0):
    """Full steps on a machine of a given speed; the longest in ms."""
    longest = 0.0
    for _ in range(n_steps):
        n = budget.tokens
        elapsed = fixed_ms + n * ms_per_token
        longest = max(longest, elapsed)
        budget.observe(n, elapsed)
    return longest


@pytest.mark.parametrize("ms_per_token", [0.01, 0.5, 2.0, 7.0])
def test_steps_stay_below_the_limit_and_use_most_of_it(ms_per_token):
    budget = StepBudget(4096, 500.0)
    assert run(budget, ms_per_token, 50) <= 500.0
    assert budget.tokens == pytest.approx(min(4096, 0.8 * 500 / ms_per_token), abs=1)


def test_a_slow_start_is_corrected_at_once():
    budget = StepBudget(512, 500.0)
    run(budget, 40.0, 1)
    assert run(budget, 40.0, 20) <= 500.0


def test_a_fixed_cost_per_step_does_not_keep_steps_small():
    budget = StepBudget(512, 500.0)
    budget.observe(1, 100.0)
    run(budget, 0.5, 60, fixed_ms=100.0)
    assert budget.tokens >= 400


def test_recovers_after_a_hiccup():
    budget = StepBudget(512, 500.0)
    run(budget, 1.0, 20)
    budget.observe(budget.tokens, 30_000.0)
    assert budget.tokens < 20
    assert run(budget, 1.0, 60) <= 500.0
    assert budget.tokens == pytest.approx(400, abs=1)


def test_never_less_than_one_token_nor_more_than_allowed():
    budget = StepBudget(64, 500.0)
    budget.observe(64, 1e9)
    assert budget.tokens == 1
    assert run(budget, 0.0, 60) == 0.0
    assert budget.tokens == 64


def test_prompts_get_a_share_beside_decoding():
    budget = StepBudget(64, 500.0)
    assert budget.prefill_tokens(0) == 64
    assert budget.prefill_tokens(20) == 44
    assert budget.prefill_tokens(60) == 4
    assert budget.prefill_tokens(64) == 0
    budget.observe(64, 64 * 25.0)
    assert budget.tokens == 16
    assert budget.prefill_tokens(30) == 4


def test_a_limit_set_from_outside_holds_until_measurements_say_otherwise():
    budget = StepBudget(512, 500.0)
    run(budget, 0.1, 20)
    budget.limit_to(100)
    assert budget.tokens == 100
    budget.limit_to(0)
    assert budget.tokens == 1
    run(budget, 0.1, 60)
    assert budget.tokens == 512
