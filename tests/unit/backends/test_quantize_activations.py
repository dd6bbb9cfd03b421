"""How activations are rounded before they meet quantised weights, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rocmforge.backends.reference import quantize_activations


def quantized(values, block=32):
    row = np.zeros((1, block), np.float32)
    row[0, : len(values)] = values
    return quantize_activations(row, block)[0, : len(values)].tolist()


def test_halves_round_to_even():
    """The largest is 127, so that the scale is 1."""
    values = [127, 0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5, 126.5, 0.49, 0.51]
    assert quantized(values) == [127, 0, 2, 2, 4, 0, -2, -2, 126, 0, 1]


def test_the_scale_is_that_of_the_block():
    assert quantized([-254, 127, 1, 3]) == [-254, 128, 0, 4]


@pytest.mark.parametrize("block", [32, 256])
def test_blocks_have_scales_of_their_own(block):
    row = np.zeros((2, 2 * block), np.float32)
    row[0, 0], row[0, 1], row[0, block] = 1270, 4, 4
    row[1, 1] = 4
    found = quantize_activations(row, block)
    # 4 lies 0.4 of a step from zero in the first block, and is the largest in the others.
    assert found[0, 1] == 0
    # 4 / 127 is rounded to float32: 2^-24 of it.
    assert found[0, block] == pytest.approx(4, rel=2.0**-23)
    assert found[1, 1] == pytest.approx(4, rel=2.0**-23)


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-40, 2.0**-121])
def test_blocks_too_small_for_a_scale_are_zeros(value):
    assert quantized([value, -value]) == [0, 0]


def test_the_smallest_block_that_is_not():
    value = 2.0**-120
    found = quantized([value, -value])
    # The scale, near 2^-127, is subnormal: 2^-150 of rounding, 127 times.
    assert found == pytest.approx([value, -value], abs=127 * 2.0**-150)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_stay_visible(value):
    with np.errstate(invalid="ignore"):
        assert np.isnan(quantized([1.0, value])).any()
