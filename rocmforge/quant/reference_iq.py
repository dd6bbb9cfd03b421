"""Decoders of the formats whose blocks hold indices into codebooks (IQ1, IQ2, IQ3).

A block is 256 values: an F16 scale, indices of vectors of 8 (IQ1, IQ2) or 4 (IQ3) magnitudes, signs
and 3- or 4-bit scales of groups. Each docstring draws the block; byte offsets are ggml-common.h's.
Arithmetic is float32 in the order of ggml's own decoders.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rocmforge.quant.block_fields import (
    Bytes,
    Floats,
    bit_signs,
    f16,
    interleaved_nibbles,
    u16,
    u32,
)
from rocmforge.quant.codebooks import codebook, sign_patterns

_HALF = np.float32(0.5)
_QUARTER = np.float32(0.25)
# IQ1 shifts the magnitudes of each group by this, up or down.
_DELTA = np.float32(0.125)


def _packed_signs(words: npt.NDArray[np.uint32]) -> Floats:
    """Four 7-bit indices of sign patterns in the low 28 bits of each word [N, G] → [N, G, 4, 8]."""
    shifts = np.array([0, 7, 14, 21], np.uint32)
    return np.take(sign_patterns(), (words[:, :, None] >> shifts) & np.uint32(127), axis=0)


def decode_iq2_xxs(blocks: Bytes) -> Floats:
    """0: f16 d. 2: 8 groups of 32 values: 4 u8 indices, u32 of 4 × 7 sign bits and a 4-bit
    scale."""
    words = u32(blocks, 2, 16).reshape(-1, 8, 2)
    indices = np.ascontiguousarray(words[:, :, :1]).view(np.uint8).reshape(-1, 8, 4)
    scale = (words[:, :, 1] >> np.uint32(28)).astype(np.float32)
    d = f16(blocks, 0) * (_HALF + scale) * _QUARTER
    return d[:, :, None, None] * codebook("IQ2_XXS")[indices] * _packed_signs(words[:, :, 1])


def decode_iq2_xs(blocks: Bytes) -> Floats:
    """0: f16 d. 2: 32 u16, 9 bits of index and 7 of signs each. 66: 16 4-bit scales."""
    words = u16(blocks, 2, 32)
    scale = interleaved_nibbles(blocks[:, 66:74]).astype(np.float32)
    d = f16(blocks, 0) * (_HALF + scale) * _QUARTER
    vectors = np.take(codebook("IQ2_XS"), words & np.uint16(511), axis=0)
    signs = np.take(sign_patterns(), words >> np.uint16(9), axis=0)
    return d[:, :, None, None] * vectors.reshape(-1, 16, 2, 8) * signs.reshape(-1, 16, 2, 8)


def decode_iq2_s(blocks: Bytes) -> Floats:
    """0: f16 d. 2: 32 low bytes of indices. 34: 32 sign bytes. 66: 32 2-bit high parts. 74: 16
    4-bit scales.
    """
    indices = blocks[:, 2:34].astype(np.uint16) | (_pairs(blocks[:, 66:74]) << np.uint16(8))
    scale = interleaved_nibbles(blocks[:, 74:82]).astype(np.float32)
    d = f16(blocks, 0) * (_HALF + scale) * _QUARTER
    vectors = codebook("IQ2_S")[indices].reshape(-1, 16, 2, 8)
    return d[:, :, None, None] * vectors * bit_signs(blocks[:, 34:66]).reshape(-1, 16, 2, 8)


def _pairs(packed: Bytes) -> npt.NDArray[np.uint16]:
    """[N, B] bytes of four 2-bit values, lowest first → [N, 4B]."""
    shifts = np.array([0, 2, 4, 6], np.uint8)
    values = (packed[:, :, None] >> shifts) & np.uint8(3)
    return values.reshape(len(packed), -1).astype(np.uint16)


def decode_iq3_xxs(blocks: Bytes) -> Floats:
    """0: f16 d. 2: 64 u8 indices. 66: 8 u32 of 4 × 7 sign bits and a 4-bit scale."""
    words = u32(blocks, 66, 8)
    scale = (words >> np.uint32(28)).astype(np.float32)
    d = f16(blocks, 0) * (_HALF + scale) * _HALF
    vectors = codebook("IQ3_XXS")[blocks[:, 2:66]].reshape(-1, 8, 4, 8)
    return d[:, :, None, None] * vectors * _packed_signs(words)


def decode_iq3_s(blocks: Bytes) -> Floats:
    """0: f16 d. 2: 64 low bytes of indices. 66: 64 ninth bits. 74: 32 sign bytes. 106: 8 4-bit
    scales.
    """
    ninth = np.unpackbits(blocks[:, 66:74], axis=1, bitorder="little").astype(np.uint16)
    indices = blocks[:, 2:66].astype(np.uint16) | (ninth << np.uint16(8))
    scale = interleaved_nibbles(blocks[:, 106:110]).astype(np.float32)
    d = f16(blocks, 0) * (np.float32(1) + np.float32(2) * scale)
    vectors = codebook("IQ3_S")[indices].reshape(-1, 8, 4, 8)
    return d[:, :, None, None] * vectors * bit_signs(blocks[:, 74:106]).reshape(-1, 8, 4, 8)


def decode_iq1_s(blocks: Bytes) -> Floats:
    """0: f16 d. 2: 32 low bytes of indices. 34: 8 u16: 4 × 3 high index bits, 3-bit scale, sign of
    the shift.
    """
    high = u16(blocks, 34, 8)
    scale = ((high >> np.uint16(12)) & np.uint16(7)).astype(np.float32)
    d = f16(blocks, 0) * (np.float32(2) * scale + np.float32(1))
    shift = np.where(high & np.uint16(0x8000), -_DELTA, _DELTA)
    parts = (high[:, :, None] >> np.array([0, 3, 6, 9], np.uint16)) & np.uint16(7)
    indices = blocks[:, 2:34].astype(np.uint16) | (parts.reshape(-1, 32) << np.uint16(8))
    vectors = codebook("IQ1_S")[indices].reshape(-1, 8, 4, 8)
    return d[:, :, None, None] * (vectors + shift[:, :, None, None])


def decode_iq1_m(blocks: Bytes) -> Floats:
    """0: 32 low bytes of indices. 32: 32 nibbles: 3 high index bits and the sign of the shift. 48:
    4 u16: 4 × 3-bit scales each, and in their top nibbles the four nibbles of the F16 scale.
    """
    words = u16(blocks, 48, 4)
    tops = (words >> np.uint16(12)) << np.array([0, 4, 8, 12], np.uint16)
    d = np.bitwise_or.reduce(tops, axis=1, keepdims=True).view(np.float16).astype(np.float32)
    scale = (words[:, :, None] >> np.array([0, 3, 6, 9], np.uint16)) & np.uint16(7)
    d = d * (np.float32(2) * scale.reshape(-1, 16).astype(np.float32) + np.float32(1))
    parts = interleaved_nibbles(blocks[:, 32:48])
    shift = np.where(parts & np.uint8(8), -_DELTA, _DELTA).reshape(-1, 16, 2, 1)
    high = (parts & np.uint8(7)).astype(np.uint16) << np.uint16(8)
    vectors = codebook("IQ1_S")[blocks[:, :32].astype(np.uint16) | high].reshape(-1, 16, 2, 8)
    return d[:, :, None, None] * (vectors + shift)
