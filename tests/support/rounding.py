"""How far float32 sums may be from exact ones, and comparisons that name the worst element."""

from __future__ import annotations

import numpy as np

from rocmforge.backends.ops import TensorSource
from rocmforge.quant.formats import FORMATS, GGMLType
from rocmforge.quant.reference import decode

UNIT = 2.0**-24
"""Half a unit in the last place of float32: the relative error of one rounding."""
ACTIVATION_BLOCKS = {
    **dict.fromkeys(("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4"), 32),
    **dict.fromkeys(("IQ4_XS", "Q4_K", "Q5_K", "Q6_K"), 256),
}
"""Values of an activation row that share a scale; formats that are not here take floats."""


WITH_MINIMA = ("Q4_1", "Q5_1", "Q4_K", "Q5_K")


def weight_magnitudes(weight: TensorSource) -> np.ndarray:
    """What a format's sums are made of, float64 [rows, cols]: |w|, and for formats with minima
    |d·s·q| + |dmin·m|, whose difference w may be small."""
    rows, cols = weight.shape
    size = np.abs(decode(weight.type, bytes(weight.data), rows * cols).astype(np.float64))
    if weight.type.name in WITH_MINIMA:
        flipped = np.frombuffer(weight.data, np.uint8).copy()
        # The sign of dmin: the difference becomes the sum, or the sum the difference.
        flipped.reshape(-1, FORMATS[weight.type].block_bytes)[:, 3] ^= 0x80
        size = np.maximum(size, np.abs(decode(weight.type, flipped.tobytes(), rows * cols)))
    return size.reshape(rows, cols)


def matmul_bound(x: np.ndarray, weight: TensorSource, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """The largest error of a float32 matmul of x [T, cols] that follows backends/ops.py, [T, rows].

    Each of the n terms (columns of float weights, blocks of quantised ones, and for each block once
    more its minima) passes at most n additions, with its product rounded in the first of them.
    Before that a block's term is rounded when its integer sum becomes a float and when d · d_a is
    taken: 2. The oracle rounds the decoded weight, twice where there are minima, and its result: 3.
    The bias adds 1. So an error of less than n + 7 units of the
    sum of all magnitudes, to first order; the other orders are below n · UNIT < 2^-13 of it.

    A quantised activation is up to half a level, 1/254 of its block's peak, larger than |x|. The
    last term is for products that are subnormal: half of 2^-149 per rounding.
    """
    cols = weight.shape[1]
    size = np.abs(x.astype(np.float64))
    if block := ACTIVATION_BLOCKS.get(weight.type.name):
        blocks = size.reshape(len(x), -1, block)
        size = (blocks + blocks.max(-1, keepdims=True) / 254).reshape(size.shape)
        n_terms = cols // FORMATS[weight.type].block_size * (1 + (weight.type.name in WITH_MINIMA))
    else:
        n_terms = cols
    sums = size @ weight_magnitudes(weight).T + np.abs(bias)
    return (n_terms + 7) * (UNIT * (1 + 2.0**-13) * sums + 2.0**-150)


def assert_within(got: np.ndarray, expected: np.ndarray, bound: np.ndarray | float) -> None:
    """|got - expected| <= bound everywhere; says where it is worst."""
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    error = np.abs(got.astype(np.float64) - expected)
    bound = np.broadcast_to(bound, error.shape)
    too_far = error > bound
    if too_far.any():
        at = np.unravel_index((error - bound).argmax(), error.shape)
        raise AssertionError(
            f"at {tuple(map(int, at))}: {got[at]!r} is not {expected[at]!r} ± {bound[at]:.3g} but "
            f"{error[at]:.3g} away; {too_far.sum()} of {too_far.size} are too far"
        )


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal in every bit (-0.0 is not 0.0)."""
    assert got.shape == expected.shape
    differs = got.view(np.uint32) != expected.view(np.uint32)
    if differs.any():
        at = tuple(map(int, np.argwhere(differs)[0]))
        raise AssertionError(
            f"{differs.sum()} of {differs.size} values differ, the first at {at}: "
            f"{got[at]!r} is not {expected[at]!r}"
        )


def float_matrix(name: str, values: np.ndarray) -> TensorSource:
    """An F32 tensor."""
    data = np.ascontiguousarray(values, np.float32)
    return TensorSource(name, GGMLType.F32, data.shape, memoryview(data.tobytes()))
