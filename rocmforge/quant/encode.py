"""Encoders: float32 values → the bytes of a ggml tensor type.

F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 give the bytes that ggml's reference encoders give
(scale from the largest magnitude, or from the range; values rounded to the nearest level). Q4_K,
Q5_K and Q6_K have a search of their own in encode_k.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rocmforge.errors import InvalidModelFile, InvalidTensorShape, UnsupportedModelFormat
from rocmforge.quant.encode_k import (
    Bytes,
    Floats,
    encode_q4_k,
    encode_q5_k,
    encode_q6_k,
    half_bytes,
    inverse,
)
from rocmforge.quant.formats import FORMATS, GGMLType

# Bounds the working memory: the encoders make a few copies of what they work on.
_VALUES_PER_PASS = 1 << 20


def encode(type_: GGMLType, values: npt.NDArray[Any]) -> bytes:
    """Encode float32 values of any shape; the last axis must be whole blocks.

    Raises UnsupportedModelFormat for a type without an encoder (see `ENCODERS`), InvalidTensorShape
    for a last axis that is no whole number of blocks, and InvalidModelFile for values that a
    quantised type cannot hold: not finite, or so large that the F16 scale overflows.
    """
    form = FORMATS[type_]
    encoder = ENCODERS.get(type_)
    if encoder is None:
        raise UnsupportedModelFormat(
            f"there is no encoder for {form.name}; there is one for "
            + ", ".join(known.name for known in ENCODERS)
        )
    array = np.ascontiguousarray(values, np.float32)
    if array.ndim == 0 or array.shape[-1] % form.block_size:
        raise InvalidTensorShape(
            f"{form.name} needs rows of a multiple of {form.block_size} values, "
            f"got shape {array.shape}"
        )
    if form.block_size > 1 and not np.isfinite(array).all():
        raise InvalidModelFile(f"values that are not finite cannot be stored as {form.name}")
    blocks = array.reshape(-1, form.block_size)
    step = max(1, _VALUES_PER_PASS // form.block_size)
    # Sums and squares of values near float32's limit overflow; half_bytes refuses the scale then.
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [encoder(blocks[i : i + step]).tobytes() for i in range(0, len(blocks), step)]
    return b"".join(parts)


def _f32(blocks: Floats) -> npt.NDArray[Any]:
    return blocks.astype("<f4")


def _f16(blocks: Floats) -> npt.NDArray[Any]:
    return blocks.astype("<f2")  # beyond 65504 F16 has only infinity


def _bf16(blocks: Floats) -> npt.NDArray[Any]:
    bits = blocks.view(np.uint32).astype(np.uint64)
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
    quiet = (bits >> 16) | 0x40
    return np.where(is_nan, quiet, rounded).astype("<u2")


def _nibbles(levels: Bytes) -> Bytes:
    """Levels [N, 32] → [N, 16]: value j in the low half of byte j, value j + 16 in the high
    half."""
    return (levels[:, :16] & np.uint8(15)) | (levels[:, 16:] << np.uint8(4))


def _fifth_bits(levels: Bytes) -> Bytes:
    """Bit 4 of the levels [N, 32] → [N, 4], value j in bit j of a little-endian u32."""
    return np.packbits(levels >> 4, axis=-1, bitorder="little")


def _around_zero(blocks: Floats, top: int) -> tuple[Floats, Bytes]:
    """Scale and levels 0…2·top−1 around `top`; the value of largest magnitude gets level 0."""
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    scale = extreme / np.float32(-top)
    levels = np.trunc(blocks * inverse(scale) + np.float32(top + 0.5))
    return scale, levels.clip(0, 2 * top - 1).astype(np.uint8)


def _from_minimum(blocks: Floats, top: int) -> tuple[Floats, Floats, Bytes]:
    """Scale, minimum and levels 0…top that span the block's range."""
    least = blocks.min(-1, keepdims=True)
    scale = (blocks.max(-1, keepdims=True) - least) / np.float32(top)
    levels = np.trunc((blocks - least) * inverse(scale) + np.float32(0.5))
    return scale, least, levels.clip(0, top).astype(np.uint8)


def _q8_0(blocks: Floats) -> Bytes:
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    scaled = blocks * inverse(scale)
    magnitude = np.abs(scaled)
    # To nearest, halves away from zero; adding 0.5 in float32 would round 0.49999997 up.
    whole = np.floor(magnitude)
    levels = np.copysign(whole + (magnitude - whole >= 0.5), scaled)
    return np.concatenate([half_bytes(scale), levels.astype(np.int8).view(np.uint8)], -1)


def _q4_0(blocks: Floats) -> Bytes:
    scale, levels = _around_zero(blocks, 8)
    return np.concatenate([half_bytes(scale), _nibbles(levels)], -1)


def _q4_1(blocks: Floats) -> Bytes:
    scale, least, levels = _from_minimum(blocks, 15)
    return np.concatenate([half_bytes(scale), half_bytes(least), _nibbles(levels)], -1)


def _q5_0(blocks: Floats) -> Bytes:
    scale, levels = _around_zero(blocks, 16)
    return np.concatenate([half_bytes(scale), _fifth_bits(levels), _nibbles(levels)], -1)


def _q5_1(blocks: Floats) -> Bytes:
    scale, least, levels = _from_minimum(blocks, 31)
    parts = [half_bytes(scale), half_bytes(least), _fifth_bits(levels), _nibbles(levels)]
    return np.concatenate(parts, -1)


ENCODERS: dict[GGMLType, Callable[[Floats], npt.NDArray[Any]]] = {
    GGMLType.F32: _f32,
    GGMLType.F16: _f16,
    GGMLType.BF16: _bf16,
    GGMLType.Q8_0: _q8_0,
    GGMLType.Q4_0: _q4_0,
    GGMLType.Q4_1: _q4_1,
    GGMLType.Q5_0: _q5_0,
    GGMLType.Q5_1: _q5_1,
    GGMLType.Q4_K: encode_q4_k,
    GGMLType.Q5_K: encode_q5_k,
    GGMLType.Q6_K: encode_q6_k,
}
"""float32 [N, block_size] → uint8 [N, block_bytes] (or an array of the type's own numbers)."""
