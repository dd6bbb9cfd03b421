"""benchmarks/comparison.py: costs of a model, ratios and shares by hand."""

from __future__ import annotations

import pytest
from comparison import ModelCost, Round, Work, best_multiply, compare_rounds
from synthetic import model_file

PROMPT = Work("prompt 8", 1, 8)
STEPS = Work("generation 4", 4, 3, 9)
COST = ModelCost(
    matrix_bytes=1000, layer_macs=300, head_macs=50, kv_bytes_per_position=2, is_float=False
)
LIMITS = {"avx2": 4000.0, "amx_int8": 8000.0, "avx2_f32": 500.0, "amx_bf16": 900.0}


def rounds(*seconds, read=5000.0, macs=LIMITS):
    return [Round(ours, theirs, read, dict(macs)) for ours, theirs in seconds]


def test_costs_of_a_file(tmp_path):
    cost = ModelCost.of_file(model_file(tmp_path, "tiny", "Q8_0"))
    # q and output 256 × 256, k and v 128 × 256, three of 512 × 256; the head is 512 × 256.
    layer = 2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256
    assert cost.layer_macs == 2 * layer
    assert cost.head_macs == 512 * 256
    assert cost.matrix_bytes == (2 * layer + 512 * 256) // 32 * 34
    # Two layers, keys and values of two heads of 64, two bytes each.
    assert cost.kv_bytes_per_position == 2 * 2 * 2 * 64 * 2
    assert not cost.is_float
    assert ModelCost.of_file(model_file(tmp_path, "tiny", "BF16")).is_float


def test_a_prompt_reads_weights_once_and_needs_one_head():
    assert PROMPT.total_tokens == 8
    assert COST.bytes_read(PROMPT, 0) == 1000
    assert COST.macs(PROMPT) == 8 * 300 + 50


def test_a_step_reads_weights_and_all_caches():
    assert STEPS.total_tokens == 12
    # Positions 10, 11 and 12 of four sequences.
    assert COST.bytes_read(STEPS, 10) == 3 * 1000 + 4 * (10 + 11 + 12) * 2
    assert COST.macs(STEPS) == 12 * (300 + 50)


def test_the_ratio_is_the_median_of_neighbours():
    # Medians of each side alone would say 3 / 2.
    found = compare_rounds(PROMPT, COST, "avx2", rounds((1.0, 3.0), (2.0, 2.0), (4.0, 8.0)))
    assert found.ratio == 2.0
    assert (found.ratio_low, found.ratio_high) == (1.5, 2.5)
    assert found.ours_tokens_per_s == 8 / 2.0
    assert found.theirs_tokens_per_s == 8 / 3.0


def test_shares_compare_with_the_limits_of_the_same_round():
    slow, fast = rounds((2.0, 1.0), read=1000.0) + rounds((1.0, 1.0), read=2000.0)
    found = compare_rounds(PROMPT, COST, "avx2", [slow, fast])
    assert found.read_share == 0.5
    found = compare_rounds(PROMPT, COST, "avx2", rounds((1.0, 1.0)))
    assert found.read_share == 1000 / 5000
    assert found.best_multiply_share == 2450 / 8000
    assert found.isa_multiply_share == 2450 / 4000
    assert set(found.shares) == {"reads", "best multiply", "multiply of the ISA in use"}


def test_float_weights_are_compared_with_float_limits():
    cost = ModelCost(1000, 300, 50, 2, is_float=True)
    found = compare_rounds(PROMPT, cost, "avx2", rounds((10.0, 10.0)))
    assert found.best_multiply_share == 245 / 900
    assert found.isa_multiply_share == 245 / 500


@pytest.mark.parametrize("isa", ["scalar", "avx512"])
def test_an_isa_without_a_limit_has_no_share(isa):
    found = compare_rounds(PROMPT, COST, isa, rounds((1.0, 1.0)))
    assert found.isa_multiply_share is None
    assert set(found.shares) == {"reads", "best multiply"}


def test_without_any_limit_nothing_is_above_it():
    assert best_multiply({}, is_float=False) == float("inf")
    assert (
        compare_rounds(PROMPT, COST, "avx2", rounds((1.0, 1.0), macs={})).best_multiply_share == 0
    )
