"""Encoders of Q4_K, Q5_K and Q6_K, with a search of our own.

A super-block is 256 values. In Q4_K and Q5_K it has 8 groups of 32 with x ≈ d·sc·q − dmin·m, where
sc and m have 6 bits; in Q6_K 16 groups of 16 with x ≈ d·sc·(q − 32), where sc has 8 signed bits.

Per group a few scales are tried; for each, values are rounded to levels and the scale (and minimum)
that fits these levels best in the least-squares sense is solved for; the best of all is kept. Then
the group scales are themselves rounded to integers, and the levels are chosen again for what the
decoder will really multiply with. A super-block is encoded in this way and in the plain one (scale
from the range); the one with the smaller squared error is stored, so the search never makes
it worse than the plain encoding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rocmforge.errors import InvalidModelFile

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

# How much of the range the levels cover in the trials: a bit less clips outliers and makes all
# other steps finer. Wider spreads of trials gained less than 1 % of squared error on normal values.
_TRIALS = (0.80, 0.85, 0.90, 0.95, 1.0, 1.05)


class _Fit(NamedTuple):
    """Group scales and minima as real numbers, [N, groups, 1]."""

    scale: Floats
    minimum: Floats


class _Packed(NamedTuple):
    """What is stored: F16 factors [N, 1, 1] as float32, integers [N, groups, 1], levels."""

    d: Floats
    dmin: Floats
    scales: Floats
    minima: Floats
    levels: Floats
    error: Floats
    """Squared error per super-block, [N]."""


def half_bytes(column: Floats) -> Bytes:
    """float32 [N, 1] → the bytes of its F16 values [N, 2]; raises InvalidModelFile on overflow."""
    with np.errstate(over="ignore"):
        halves = column.astype("<f2")
    if not np.isfinite(halves).all():
        raise InvalidModelFile(
            "values are too large to be quantised: the scale of a block is beyond F16's 65504"
        )
    return halves.view(np.uint8)


def inverse(scale: Floats) -> Floats:
    """1 / scale, and 0 where the scale is 0 (or so small that its inverse is infinite)."""
    with np.errstate(divide="ignore", over="ignore"):
        result = np.float32(1) / scale
    return np.where(np.isfinite(result), result, np.float32(0))


def encode_q4_k(blocks: Floats) -> Bytes:
    """float32 [N, 256] → bytes [N, 144]: d, dmin, 12 bytes of scales and minima, 128 of levels."""
    best = _encode_with_minimum(blocks, top=15)
    levels = best.levels.astype(np.uint8).reshape(-1, 4, 2, 32)
    nibbles = (levels[:, :, 0] | (levels[:, :, 1] << 4)).reshape(-1, 128)
    return np.concatenate([_k_head(best), nibbles], -1)


def encode_q5_k(blocks: Floats) -> Bytes:
    """float32 [N, 256] → bytes [N, 176]: as Q4_K with 32 bytes of fifth bits before the nibbles."""
    best = _encode_with_minimum(blocks, top=31)
    levels = best.levels.astype(np.uint8).reshape(-1, 8, 32)
    # Bit g of byte j is the fifth bit of value j of group g.
    fifth = np.packbits(levels >> 4, axis=1, bitorder="little").reshape(-1, 32)
    pairs = (levels & 15).reshape(-1, 4, 2, 32)
    nibbles = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)
    return np.concatenate([_k_head(best), fifth, nibbles], -1)


def encode_q6_k(blocks: Floats) -> Bytes:
    """float32 [N, 256] → bytes [N, 210]: low nibbles 128, high bits 64, int8 scales 16, d."""
    x = blocks.reshape(-1, 16, 16)
    best = _better(_pack_symmetric(x, _plain_symmetric(x)), _pack_symmetric(x, _fit_symmetric(x)))
    levels = (best.levels + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = levels & 15, levels >> 4
    # Of each half of 128 values: four runs of 32; runs 0 and 2 share bytes, so do 1 and 3.
    nibbles = (low[:, :, :2] | (low[:, :, 2:] << 4)).reshape(-1, 128)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    bits = np.bitwise_or.reduce(high << shifts, axis=2).reshape(-1, 64)
    scales = best.scales.reshape(-1, 16).astype(np.int8).view(np.uint8)
    return np.concatenate([nibbles, bits, scales, half_bytes(best.d.reshape(-1, 1))], -1)


def _k_head(packed: _Packed) -> Bytes:
    """d, dmin and the 12 bytes that hold eight 6-bit scales and eight 6-bit minima."""
    sc = packed.scales.reshape(-1, 8).astype(np.uint8)
    m = packed.minima.reshape(-1, 8).astype(np.uint8)
    first = sc[:, :4] | ((sc[:, 4:] >> 4) << 6)
    second = m[:, :4] | ((m[:, 4:] >> 4) << 6)
    third = (sc[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)
    d, dmin = half_bytes(packed.d.reshape(-1, 1)), half_bytes(packed.dmin.reshape(-1, 1))
    return np.concatenate([d, dmin, first, second, third], -1)


def _half(values: Floats) -> Floats:
    """The nearest F16 values, as float32."""
    with np.errstate(over="ignore"):  # refused by half_bytes when it is stored
        return values.astype(np.float16).astype(np.float32)


def _better(a: _Packed, b: _Packed) -> _Packed:
    """Per super-block the encoding with the smaller error; `a` unless `b` is strictly better."""
    take_b = (b.error < a.error).reshape(-1, 1, 1)
    return _Packed(
        d=np.where(take_b, b.d, a.d),
        dmin=np.where(take_b, b.dmin, a.dmin),
        scales=np.where(take_b, b.scales, a.scales),
        minima=np.where(take_b, b.minima, a.minima),
        levels=np.where(take_b, b.levels, a.levels),
        error=np.minimum(a.error, b.error),
    )


def _squared_error(x: Floats, decoded: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        error: Floats = np.square(x - decoded).sum((1, 2), dtype=np.float32)
    return error


# -- x ≈ scale·q − minimum, q in 0…top -------------------------------------------------------------


def _encode_with_minimum(blocks: Floats, top: int) -> _Packed:
    x = blocks.reshape(-1, 8, 32)
    plain = _plain_with_minimum(x, top)
    searched = _fit_with_minimum(x, plain, top)
    return _better(_pack_with_minimum(x, plain, top), _pack_with_minimum(x, searched, top))


def _plain_with_minimum(x: Floats, top: int) -> _Fit:
    """Levels span the range. Minima are stored without sign, so a range above 0 starts at 0."""
    least = np.minimum(x.min(-1, keepdims=True), np.float32(0))
    return _Fit((x.max(-1, keepdims=True).clip(0) - least) / np.float32(top), -least)


def _fit_with_minimum(x: Floats, plain: _Fit, top: int) -> _Fit:
    best, best_error = plain, np.full(plain.scale.shape, np.inf, np.float32)
    for trial in _TRIALS:
        scale = plain.scale * np.float32(trial)
        levels = np.rint((x + plain.minimum) * inverse(scale)).clip(0, top)
        fit = _least_squares(x, levels, plain)
        error = np.square(x - (fit.scale * levels - fit.minimum)).sum(-1, keepdims=True)
        take = error < best_error
        best = _Fit(
            np.where(take, fit.scale, best.scale), np.where(take, fit.minimum, best.minimum)
        )
        best_error = np.where(take, error, best_error)
    return best


def _least_squares(x: Floats, levels: Floats, fallback: _Fit) -> _Fit:
    """The scale ≥ 0 and minimum ≥ 0 that fit x to fixed levels; `fallback` where none does."""
    n = np.float32(x.shape[-1])
    sum_q, sum_x = levels.sum(-1, keepdims=True), x.sum(-1, keepdims=True)
    sum_qq = np.square(levels).sum(-1, keepdims=True)
    sum_qx = (levels * x).sum(-1, keepdims=True)
    determinant = n * sum_qq - sum_q * sum_q
    scale = (n * sum_qx - sum_q * sum_x) * inverse(determinant)
    minimum = (scale * sum_q - sum_x) / n
    # A negative minimum cannot be stored: refit with none.
    without = sum_qx * inverse(sum_qq)
    scale, minimum = np.where(minimum < 0, without, scale), np.maximum(minimum, np.float32(0))
    usable = (scale > 0) & (determinant > 0)
    return _Fit(
        np.where(usable, scale, fallback.scale), np.where(usable, minimum, fallback.minimum)
    )


def _pack_with_minimum(x: Floats, fit: _Fit, top: int) -> _Packed:
    d = _half(fit.scale.max(1, keepdims=True) / np.float32(63))
    dmin = _half(fit.minimum.max(1, keepdims=True) / np.float32(63))
    scales = np.rint(fit.scale * inverse(d)).clip(0, 63)
    minima = np.rint(fit.minimum * inverse(dmin)).clip(0, 63)
    with np.errstate(over="ignore", invalid="ignore"):
        step, low = d * scales, dmin * minima
        levels = np.rint((x + low) * inverse(step)).clip(0, top)
        error = _squared_error(x, step * levels - low)
    return _Packed(d, dmin, scales, minima, levels, error)


# -- x ≈ scale·q, q in −32…31 ----------------------------------------------------------------------


def _plain_symmetric(x: Floats) -> _Fit:
    """The value of largest magnitude gets level −32."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(-1, keepdims=True), -1)
    return _Fit(extreme / np.float32(-32), np.zeros_like(extreme))


def _fit_symmetric(x: Floats) -> _Fit:
    plain = _plain_symmetric(x)
    best, best_error = plain, np.full(plain.scale.shape, np.inf, np.float32)
    for trial in _TRIALS:
        scale = plain.scale * np.float32(trial)
        levels = np.rint(x * inverse(scale)).clip(-32, 31)
        sum_qx = (levels * x).sum(-1, keepdims=True)
        scale = sum_qx * inverse(np.square(levels).sum(-1, keepdims=True))
        error = np.square(x - scale * levels).sum(-1, keepdims=True)
        take = error < best_error
        best = _Fit(np.where(take, scale, best.scale), best.minimum)
        best_error = np.where(take, error, best_error)
    return best


def _pack_symmetric(x: Floats, fit: _Fit) -> _Packed:
    extreme = np.take_along_axis(fit.scale, np.abs(fit.scale).argmax(1, keepdims=True), 1)
    d = _half(extreme / np.float32(-128))
    scales = np.rint(fit.scale * inverse(d)).clip(-128, 127)
    with np.errstate(over="ignore", invalid="ignore"):
        step = d * scales
        levels = np.rint(x * inverse(step)).clip(-32, 31)
        error = _squared_error(x, step * levels)
    return _Packed(d, np.zeros_like(d), scales, np.zeros_like(scales), levels, error)
