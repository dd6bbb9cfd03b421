"""Encoders: bytes of the gguf package's, error bounds from each format's step, refused values."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from rocmforge.errors import InvalidModelFile, InvalidTensorShape, UnsupportedModelFormat
from rocmforge.quant.encode import ENCODERS, encode
from rocmforge.quant.formats import FORMATS, GGMLType
from rocmforge.quant.reference import decode

BY_PACKAGE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
BLOCKS = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
# F16 rounds to 11 bits: relative 2^-11, or 2^-25 absolute among subnormals.
F16_RELATIVE, F16_ABSOLUTE = 2.0**-11, 2.0**-25


def rows(seed=0):
    """float32 [64, 512]: rows of magnitudes from 2^-12 to 2^12, with constants and outliers."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((64, 512)) * 2.0 ** np.linspace(-12, 12, 64)[:, None]
    values[0] = 0
    values[1] = -2.5
    values[2] = np.abs(values[2])
    values[3] = -np.abs(values[3])
    values[4, 77] = 3e3
    values[5, 1::2] = 0
    values[6] = 1e-30
    return values.astype(np.float32)


def round_trip(name, values):
    return decode(GGMLType[name], encode(GGMLType[name], values), values.size).reshape(values.shape)


@pytest.mark.parametrize("name", BY_PACKAGE)
@pytest.mark.parametrize("seed", range(3))
def test_bytes_are_the_packages(name, seed):
    values = rows(seed)
    expected = gguf.quantize(values, gguf.GGMLQuantizationType[name])
    assert encode(GGMLType[name], values) == expected.tobytes()


def test_halves_between_two_levels():
    """Values exactly between two levels, where encoders are most likely to differ."""
    steps = np.arange(-127, 128) / 2
    values = np.zeros((8, 32), np.float32)
    values.reshape(-1)[: steps.size] = steps
    values[:, 0] = 127
    for name in BY_PACKAGE:
        expected = gguf.quantize(values, gguf.GGMLQuantizationType[name])
        assert encode(GGMLType[name], values) == expected.tobytes(), name


def test_bf16_and_f16_specials():
    specials = np.array([np.nan, np.inf, -np.inf, 3.4e38, 1e-45, -0.0, 65519, 65520], np.float32)
    halves = decode(GGMLType.F16, encode(GGMLType.F16, specials), 8)
    assert np.isnan(halves[0])
    assert halves[1:].tolist() == [np.inf, -np.inf, np.inf, 0, 0, 65504, np.inf]
    brain = decode(GGMLType.BF16, encode(GGMLType.BF16, specials), 8)
    assert np.isnan(brain[0])
    # 3.4e38 is nearer to 2^128 than to BF16's largest number; 65519 has 8 significant bits: 2^16.
    assert brain[1:].tolist() == [np.inf, -np.inf, np.inf, 0, 0, 65536, 65536]


def grouped(values, size):
    return values.astype(np.float64).reshape(-1, size)


def half_of(scale):
    """The error of a scale that was rounded to F16."""
    return np.abs(scale) * F16_RELATIVE + F16_ABSOLUTE


class TestErrorBounds:
    """A value is off by at most half a step, and by what the rounding of scale (times the largest
    level) and minimum to F16 adds. Float32 arithmetic adds far less: 2^-20 of the largest value.
    """

    def check(self, name, values, step, top, extra):
        blocks, error = grouped(values, 32), np.abs(round_trip(name, values) - values)
        slack = np.abs(blocks).max(1) * 2.0**-20
        bound = step / 2 + top * half_of(step) + extra + slack
        assert (grouped(error, 32).max(1) <= bound).all()

    def test_q8_0(self):
        values = rows()
        step = np.abs(grouped(values, 32)).max(1) / 127
        self.check("Q8_0", values, step, 127, 0)

    @pytest.mark.parametrize(("name", "top"), [("Q4_0", 8), ("Q5_0", 16)])
    def test_around_zero(self, name, top):
        values = rows()
        step = np.abs(grouped(values, 32)).max(1) / top
        # Levels reach from -top to top - 1: the far side may lie one step beyond, not half of one.
        self.check(name, values, step, top, step / 2)

    @pytest.mark.parametrize(("name", "top"), [("Q4_1", 15), ("Q5_1", 31)])
    def test_from_the_minimum(self, name, top):
        values = rows()
        blocks = grouped(values, 32)
        step = (blocks.max(1) - blocks.min(1)) / top
        self.check(name, values, step, top, half_of(blocks.min(1)))

    @pytest.mark.parametrize(("name", "top"), [("Q4_K", 15), ("Q5_K", 31)])
    def test_k_with_minimum(self, name, top):
        values = rows()
        groups = values.astype(np.float64).reshape(-1, 8, 32)
        least = np.minimum(groups.min(2), 0)
        step = (groups.max(2).clip(0) - least) / top
        # Steps and minima are multiples of 1/63 of the largest of their super-block: off by half
        # of one, and by the rounding of that unit to F16.
        unit, low_unit = step.max(1) / 63, -least.min(1) / 63
        step_error = unit / 2 + 63 * half_of(unit)
        low_error = low_unit / 2 + 63 * half_of(low_unit)
        # In range: half a step (the step itself is off, too). Beyond its ends: what they moved.
        bound = step.max(1) / 2 + top * step_error + low_error + step_error
        self.check_squares(name, values, bound)

    def test_k_without_minimum(self):
        values = rows()
        groups = values.astype(np.float64).reshape(-1, 16, 16)
        step = np.abs(groups).max(2) / 32
        unit = step.max(1) / 128
        # The largest scale may be of the other sign than the unit: 127 of its 128 parts are left.
        step_error = unit + 128 * half_of(unit)
        # Levels reach to -32 and 31: the far side may lie one step beyond.
        bound = step.max(1) + 33 * step_error
        self.check_squares("Q6_K", values, bound)

    def check_squares(self, name, values, bound):
        """A search may trade one value's error for another's, but not add to the squares: their sum
        over a super-block is at most that of the plain encoding, whose values keep the bound."""
        error = grouped(round_trip(name, values).astype(np.float64) - values, 256)
        slack = np.abs(grouped(values, 256)).max(1) * 2.0**-18
        assert (np.square(error).sum(1) <= 256 * np.square(bound + slack)).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_zeros_stay_zero(name):
    assert not round_trip(name, np.zeros((2, 256), np.float32)).any()


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_do_not_depend_on_each_other(name):
    form = FORMATS[GGMLType[name]]
    values = rows()[:, :256]
    whole = encode(GGMLType[name], values)
    one_by_one = b"".join(encode(GGMLType[name], row[None]) for row in values)
    assert whole == one_by_one
    assert len(whole) == values.size // form.block_size * form.block_bytes


def test_more_values_than_one_pass(monkeypatch):
    from rocmforge.quant import encode as module

    values = rows()
    expected = encode(GGMLType.Q4_K, values)
    monkeypatch.setattr(module, "_VALUES_PER_PASS", 1000)
    assert encode(GGMLType.Q4_K, values) == expected


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(name, bad):
    values = np.ones((1, 256), np.float32)
    values[0, 9] = bad
    with pytest.raises(InvalidModelFile, match=f"not finite cannot be stored as {name}"):
        encode(GGMLType[name], values)


@pytest.mark.parametrize("name", BLOCKS)
def test_values_beyond_the_scale(name):
    values = np.full((1, 256), 3e38, np.float32)
    values[0, ::2] = -3e38
    with pytest.raises(InvalidModelFile, match="beyond F16"):
        encode(GGMLType[name], values)


def test_types_without_an_encoder():
    for type_ in set(GGMLType) - set(ENCODERS):
        with pytest.raises(UnsupportedModelFormat, match=rf"no encoder for {type_.name}; .*Q8_0"):
            encode(type_, np.zeros((1, 256), np.float32))


@pytest.mark.parametrize("shape", [(4, 31), (31,), (), (256, 1)])
def test_rows_that_are_no_whole_blocks(shape):
    with pytest.raises(InvalidTensorShape, match="Q8_0 needs rows of a multiple of 32"):
        encode(GGMLType.Q8_0, np.zeros(shape, np.float32))
