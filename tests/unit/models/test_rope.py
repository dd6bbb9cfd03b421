"""Frequencies and magnitudes against numbers worked out by hand from the papers' formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rocmforge.errors import InvalidModelFile
from rocmforge.models.rope import frequencies
from tests.support.model_specs import spec_of

# Head size 8 and base 10 000: pair i has 10 000^(-2i / 8).
PLAIN = [1.0, 0.1, 0.01, 0.001]


def frequencies_of(factors=None, *, n_ctx=512, names=(), **scaling):
    changes = {"rope.dimension_count": 8, "context_length": n_ctx}
    changes |= {f"rope.scaling.{key}": value for key, value in scaling.items()}
    factors = None if factors is None else np.array(factors, np.float32)
    found, magnitude = frequencies(spec_of(changes=changes, names=names), factors)
    assert found.dtype == np.float32
    return found, magnitude


def assert_close(found, expected):
    # float32 keeps 2^-24 of each.
    np.testing.assert_allclose(found, expected, rtol=2.0**-23)


def test_without_scaling():
    found, magnitude = frequencies_of()
    assert_close(found, PLAIN)
    assert magnitude == 1.0


def test_only_the_rotated_part_counts():
    found, _ = frequencies(spec_of(changes={"rope.dimension_count": 4}), None)
    assert_close(found, [1.0, 0.01])


def test_linear():
    """Position interpolation: positions divided by the factor."""
    found, magnitude = frequencies_of(type="linear", factor=4.0)
    assert_close(found, [0.25, 0.025, 0.0025, 0.00025])
    assert magnitude == 1.0


def test_llama3_divides_by_the_files_factors():
    """Llama 3 (factor 8, low 1, high 4, original context 8192): turns within 8192 positions are
    1303.8, 130.38, 13.04 and 1.3038. The first three turn more than 4 times and stay; the last is
    between: smooth = (1.3038 - 1) / (4 - 1), frequency · ((1 - smooth) / 8 + smooth)."""
    turns = 8192 * 0.001 / (2 * math.pi)
    smooth = (turns - 1) / 3
    factor = 1 / ((1 - smooth) / 8 + smooth)
    assert factor == pytest.approx(4.6815, abs=1e-4)
    found, magnitude = frequencies_of([1, 1, 1, factor], names=("rope_freqs.weight",))
    assert_close(found, [1.0, 0.1, 0.01, 0.001 / factor])
    assert magnitude == 1.0


YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 4096}


def test_yarn():
    """Pair that turns n times in 4096 positions: 8 · ln(4096 / 2πn) / (2 · ln 10 000), which is
    1.309 for n = 32 and 2.814 for n = 1. So pairs 0 and 1 stay, pair 3 is divided by 4, and pair
    2, half-way between 1 and 3, is the mean of both. Magnitude 0.1 · ln 4 + 1."""
    found, magnitude = frequencies_of(**YARN)
    assert_close(found, [1.0, 0.1, 0.00625, 0.00025])
    assert magnitude == pytest.approx(1.1386294361119891)


def test_yarn_with_other_constants():
    """n = 8 gives pair 1.911, floor 1; n = 4 gives 2.212, ceiling 3: the same ramp. n = 64 gives
    1.008 and n = 16 gives 1.610, ceiling 2: pair 2 is now divided in full."""
    found, _ = frequencies_of(**YARN, yarn_beta_fast=8.0, yarn_beta_slow=4.0)
    assert_close(found, [1.0, 0.1, 0.00625, 0.00025])
    found, _ = frequencies_of(**YARN, yarn_beta_fast=64.0, yarn_beta_slow=16.0)
    assert_close(found, [1.0, 0.1, 0.0025, 0.00025])


def test_yarn_with_a_factor_on_attention():
    _, magnitude = frequencies_of(**YARN, attn_factor=0.5)
    assert magnitude == pytest.approx(0.5 * 1.1386294361119891)


def test_yarn_without_extrapolation_is_interpolation():
    found, magnitude = frequencies_of(**YARN, yarn_ext_factor=0.0)
    assert_close(found, [0.25, 0.025, 0.0025, 0.00025])
    assert magnitude == 1.0
    _, magnitude = frequencies_of(**YARN, yarn_ext_factor=0.0, attn_factor=0.5)
    assert magnitude == 0.5


def test_yarn_that_shortens_has_no_magnitude():
    assert frequencies_of(type="yarn", factor=0.5)[1] == 1.0


def test_longrope():
    """131 072 = 32 · 4096: magnitude √(1 + ln 32 / ln 4096) = √(1 + 5 / 12)."""
    found, magnitude = frequencies_of(
        [1, 2, 4, 8], n_ctx=131_072, type="longrope", original_context_length=4096
    )
    assert_close(found, [1.0, 0.05, 0.0025, 0.000125])
    assert magnitude == pytest.approx(math.sqrt(17 / 12))


def test_longrope_within_the_original_context():
    scaling = {"type": "longrope", "original_context_length": 4096}
    assert frequencies_of([1, 1, 1, 1], n_ctx=4096, **scaling)[1] == 1.0


def test_longrope_with_a_factor_on_attention():
    scaling = {"type": "longrope", "original_context_length": 4096, "attn_factor": 1.25}
    assert frequencies_of([1, 1, 1, 1], n_ctx=131_072, **scaling)[1] == 1.25


@pytest.mark.parametrize("factor", [1e-45, 1e-40])
def test_frequencies_that_float32_cannot_hold(factor):
    with pytest.raises(InvalidModelFile, match=r"llama\.rope\..* not finite"):
        frequencies_of([factor, 1, 1, 1], names=("rope_freqs.weight",))
