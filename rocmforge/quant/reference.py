"""Decode every ggml tensor type to float32 with numpy: the oracle of all kernels, and the slow path
at load.

Layouts and formulas are those of ggml-common.h and ggml-quants.c; each decoder's docstring draws
its block. All arithmetic is float32, in the order of ggml's own decoders, so that results are equal
bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rocmforge.errors import InvalidTensorShape
from rocmforge.quant.block_fields import Bytes, Floats, f16, f32, interleaved_nibbles, nibbles
from rocmforge.quant.formats import FORMATS, GGMLType, row_bytes
from rocmforge.quant.reference_iq import (
    decode_iq1_m,
    decode_iq1_s,
    decode_iq2_s,
    decode_iq2_xs,
    decode_iq2_xxs,
    decode_iq3_s,
    decode_iq3_xxs,
)

Buffer = bytes | bytearray | memoryview | Bytes

# Bounds the working memory to a few MiB: the decoders make copies of what they work on.
_VALUES_PER_PASS = 1 << 18

# Nonlinear 4-bit values of IQ4_NL and IQ4_XS, and of MXFP4 and NVFP4 (twice the E2M1 number).
IQ4_VALUES: Floats = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
MXFP4_VALUES: Floats = np.array(
    [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32
)


def decode(type_: GGMLType, data: Buffer, n_values: int) -> Floats:
    """The first n_values of `data` (whole blocks of `type_`) → float32 [n_values].

    Raises InvalidTensorShape when data is not exactly that long.
    """
    raw = np.frombuffer(data, np.uint8)
    expected = row_bytes(type_, n_values)
    if raw.size != expected:
        raise InvalidTensorShape(
            f"{n_values} values of {type_.name} take {expected} bytes, got {raw.size}"
        )
    form = FORMATS[type_]
    blocks = raw.reshape(-1, form.block_bytes)
    values = np.empty((len(blocks), form.block_size), np.float32)
    step = max(1, _VALUES_PER_PASS // form.block_size)
    # Scales of damaged files may be NaN or infinite; so are the values then.
    with np.errstate(invalid="ignore", over="ignore"):
        for i in range(0, len(blocks), step):
            part = blocks[i : i + step]
            values[i : i + step] = _DECODERS[type_](part).reshape(len(part), -1)
    return values.reshape(-1)


def _plain(dtype: str) -> Callable[[Bytes], Floats]:
    def decode_plain(blocks: Bytes) -> Floats:
        return np.ascontiguousarray(blocks).view(dtype).astype(np.float32)

    return decode_plain


def _bf16(blocks: Bytes) -> Floats:
    """The upper half of a float32."""
    return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    """f16 d, 16 bytes of nibbles (low halves first): d · (q - 8)."""
    q = nibbles(blocks[:, 2:]).astype(np.float32) - 8
    return f16(blocks, 0) * q


def _q4_1(blocks: Bytes) -> Floats:
    """f16 d, f16 m, 16 bytes of nibbles: d · q + m."""
    return f16(blocks, 0) * nibbles(blocks[:, 4:]).astype(np.float32) + f16(blocks, 2)


def _fifth_bits(blocks: Bytes, start: int) -> npt.NDArray[np.uint8]:
    """32 bits, one per value, as 0 or 16 → [N, 32]."""
    bits = np.unpackbits(blocks[:, start : start + 4], axis=1, bitorder="little")
    return bits << np.uint8(4)


def _q5_0(blocks: Bytes) -> Floats:
    """f16 d, u32 fifth bits, 16 bytes of nibbles: d · (q - 16)."""
    q = (nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)).astype(np.float32) - 16
    return f16(blocks, 0) * q


def _q5_1(blocks: Bytes) -> Floats:
    """f16 d, f16 m, u32 fifth bits, 16 bytes of nibbles: d · q + m."""
    q = (nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)).astype(np.float32)
    return f16(blocks, 0) * q + f16(blocks, 2)


def _q8_0(blocks: Bytes) -> Floats:
    """f16 d, 32 int8: d · q."""
    return f16(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q8_1(blocks: Bytes) -> Floats:
    """f16 d, f16 sum (not needed here), 32 int8: d · q."""
    return f16(blocks, 0) * blocks[:, 4:].view(np.int8).astype(np.float32)


def _q8_k(blocks: Bytes) -> Floats:
    """f32 d, 256 int8, 16 int16 sums (not needed here): d · q."""
    return f32(blocks, 0) * blocks[:, 4:260].view(np.int8).astype(np.float32)


def _crumbs(packed: Bytes) -> npt.NDArray[np.uint8]:
    """[N, 64] bytes of 2-bit values → [N, 256]; each run of 32 bytes holds 4 runs of 32 values."""
    halves = packed.reshape(-1, 2, 1, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    return ((halves >> shifts) & np.uint8(3)).reshape(-1, 256)


def _q2_k(blocks: Bytes) -> Floats:
    """16 bytes of 4-bit scale and min, 64 bytes of 2-bit values, f16 d, f16 dmin: d·s·q -
    dmin·m."""
    scales = (blocks[:, :16] & 0xF).astype(np.float32) * f16(blocks, 80)
    mins = (blocks[:, :16] >> 4).astype(np.float32) * f16(blocks, 82)
    q = _crumbs(blocks[:, 16:80]).reshape(-1, 16, 16).astype(np.float32)
    return scales[:, :, None] * q - mins[:, :, None]


def _q3_k(blocks: Bytes) -> Floats:
    """32 bytes of high bits, 64 bytes of 2-bit values, 12 bytes of 6-bit scales, f16 d:
    d·(s-32)·q."""
    high = np.unpackbits(blocks[:, :32].reshape(-1, 1, 32), axis=1, bitorder="little")
    low = _crumbs(blocks[:, 32:96]).astype(np.int8)
    # A clear high bit takes 4 away.
    q = low - ((high.reshape(-1, 256) ^ 1) << 2).astype(np.int8)
    packed = blocks[:, 96:108]
    lows = nibbles(packed[:, :8])
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 4, 1)
    tops = ((packed[:, 8:].reshape(-1, 1, 4) >> shifts) & 3).reshape(-1, 16)
    scales = (lows | (tops << 4)).astype(np.int8) - 32
    d = f16(blocks, 108) * scales.astype(np.float32)
    return d[:, :, None] * q.reshape(-1, 16, 16).astype(np.float32)


def six_bit_scales(packed: Bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The 12 bytes of Q4_K and Q5_K → (scales, mins), each uint8 [N, 8] of 6-bit values."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (third & 0xF) | ((first >> 6) << 4)], axis=1)
    mins = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=1)
    return scales, mins


def _nibble_runs(packed: Bytes) -> npt.NDArray[np.uint8]:
    """[N, 128] bytes → [N, 8, 32]; each run of 32 bytes holds 32 low, then 32 high halves."""
    runs = packed.reshape(-1, 4, 32)
    return np.stack([runs & 0xF, runs >> 4], axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes) -> Floats:
    """f16 d, f16 dmin, 12 bytes of 6-bit scales and mins, 128 bytes of nibbles: d·s·q - dmin·m."""
    scales, mins = six_bit_scales(blocks[:, 4:16])
    d = f16(blocks, 0) * scales.astype(np.float32)
    m = f16(blocks, 2) * mins.astype(np.float32)
    q = _nibble_runs(blocks[:, 16:144]).astype(np.float32)
    return d[:, :, None] * q - m[:, :, None]


def _q5_k(blocks: Bytes) -> Floats:
    """Q4_K with 32 bytes of fifth bits (bit j of byte i: value i of run j) before the nibbles."""
    scales, mins = six_bit_scales(blocks[:, 4:16])
    d = f16(blocks, 0) * scales.astype(np.float32)
    m = f16(blocks, 2) * mins.astype(np.float32)
    shifts = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    fifth = ((blocks[:, 16:48].reshape(-1, 1, 32) >> shifts) & 1) << 4
    q = (_nibble_runs(blocks[:, 48:176]) | fifth).astype(np.float32)
    return d[:, :, None] * q - m[:, :, None]


def _q6_k(blocks: Bytes) -> Floats:
    """128 bytes of low nibbles, 64 bytes of high pairs, 16 int8 scales, f16 d: d·s·(q - 32).

    Each half of the block holds 128 values: nibbles of 64 bytes (low halves, then high), pairs of
    32.
    """
    low = blocks[:, :128].reshape(-1, 2, 64)
    low_bits: Bytes = np.concatenate([low & 0xF, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    pairs = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3
    q = (low_bits | (pairs << 4)).astype(np.int8) - 32
    d: Floats = f16(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return d[:, :, None] * q.reshape(-1, 16, 16).astype(np.float32)


def _iq4_nl(blocks: Bytes) -> Floats:
    """f16 d, 16 bytes of nibbles that index 16 unevenly spaced values."""
    return f16(blocks, 0) * np.take(IQ4_VALUES, nibbles(blocks[:, 2:]))


def _iq4_xs(blocks: Bytes) -> Floats:
    """f16 d, u16 high scale bits, 4 bytes of low scale nibbles, 128 bytes of nibbles as in
    IQ4_NL."""
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2")
    shifts = np.arange(0, 16, 2, dtype=np.uint16)
    tops = ((high >> shifts) & 3).astype(np.uint8)
    packed = blocks[:, 4:8]
    scales = (interleaved_nibbles(packed) | (tops << 4)).astype(np.int8) - 32
    d = f16(blocks, 0) * scales.astype(np.float32)
    runs = blocks[:, 8:136].reshape(-1, 8, 16)
    q = np.concatenate([runs & 0xF, runs >> 4], axis=2)
    return d[:, :, None] * np.take(IQ4_VALUES, q)


def _trits(packed: Bytes, n_per_byte: int) -> npt.NDArray[np.int8]:
    """[N, B] bytes that hold base-3 digits as fractions of 256 → int8 [N, n · B] of -1, 0, 1."""
    powers = np.array([3**i for i in range(n_per_byte)], np.uint8).reshape(1, -1, 1)
    fractions = (packed[:, None, :] * powers).astype(np.uint16)
    return (((fractions * 3) >> 8).astype(np.int8) - 1).reshape(packed.shape[0], -1)


def _tq1_0(blocks: Bytes) -> Floats:
    """48 bytes of 5 ternary digits (32 bytes, then 16), 4 bytes of 4 digits, f16 d."""
    q = np.concatenate(
        [_trits(blocks[:, :32], 5), _trits(blocks[:, 32:48], 5), _trits(blocks[:, 48:52], 4)],
        axis=1,
    )
    return f16(blocks, 52) * q.astype(np.float32)


def _tq2_0(blocks: Bytes) -> Floats:
    """64 bytes of 2-bit digits, f16 d: d · (q - 1)."""
    q = _crumbs(blocks[:, :64]).astype(np.int8) - 1
    return f16(blocks, 64) * q.astype(np.float32)


def _mxfp4(blocks: Bytes) -> Floats:
    """u8 exponent (E8M0), 16 bytes of nibbles in E2M1; the table holds twice the values."""
    exponent = blocks[:, :1].astype(np.uint32)
    # 2^(e - 128): half the power, for the doubled table; e < 2 needs subnormals.
    bits = np.where(exponent < 2, np.uint32(0x00200000) << exponent, (exponent - 1) << 23)
    return bits.astype(np.uint32).view(np.float32) * np.take(MXFP4_VALUES, nibbles(blocks[:, 1:]))


def _nvfp4(blocks: Bytes) -> Floats:
    """4 scales in E4M3 without sign, 4 runs of 8 bytes of nibbles in E2M1; table as for MXFP4."""
    code = blocks[:, :4].astype(np.int32)
    exponent, mantissa = (code >> 3) & 15, (code & 7).astype(np.float32)
    # Half of the number, for the doubled table. Exponent 0 is subnormal; 0x7F is NaN, read as 0.
    subnormal = mantissa * np.float32(2.0**-10)
    normal = np.ldexp(np.float32(1) + mantissa / np.float32(8), exponent - 8)
    scale = np.where(exponent == 0, subnormal, normal)
    scale = np.where(code == 0x7F, np.float32(0), scale).astype(np.float32)
    runs = blocks[:, 4:36].reshape(-1, 8)
    return scale[:, :, None] * np.take(MXFP4_VALUES, nibbles(runs)).reshape(-1, 4, 16)


def _q1_0(blocks: Bytes) -> Floats:
    """f16 d, 128 bits, lowest first: a set bit is d, a clear one -d."""
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32)
    return f16(blocks, 0) * (np.float32(2) * bits - np.float32(1))


_DECODERS: dict[GGMLType, Callable[[Bytes], Floats]] = {
    GGMLType.F32: _plain("<f4"),
    GGMLType.F16: _plain("<f2"),
    GGMLType.F64: _plain("<f8"),
    GGMLType.I8: _plain("<i1"),
    GGMLType.I16: _plain("<i2"),
    GGMLType.I32: _plain("<i4"),
    GGMLType.I64: _plain("<i8"),
    GGMLType.BF16: _bf16,
    GGMLType.Q4_0: _q4_0,
    GGMLType.Q4_1: _q4_1,
    GGMLType.Q5_0: _q5_0,
    GGMLType.Q5_1: _q5_1,
    GGMLType.Q8_0: _q8_0,
    GGMLType.Q8_1: _q8_1,
    GGMLType.Q8_K: _q8_k,
    GGMLType.Q2_K: _q2_k,
    GGMLType.Q3_K: _q3_k,
    GGMLType.Q4_K: _q4_k,
    GGMLType.Q5_K: _q5_k,
    GGMLType.Q6_K: _q6_k,
    GGMLType.IQ4_NL: _iq4_nl,
    GGMLType.IQ4_XS: _iq4_xs,
    GGMLType.TQ1_0: _tq1_0,
    GGMLType.TQ2_0: _tq2_0,
    GGMLType.MXFP4: _mxfp4,
    GGMLType.NVFP4: _nvfp4,
    GGMLType.Q1_0: _q1_0,
    GGMLType.IQ1_S: decode_iq1_s,
    GGMLType.IQ1_M: decode_iq1_m,
    GGMLType.IQ2_XXS: decode_iq2_xxs,
    GGMLType.IQ2_XS: decode_iq2_xs,
    GGMLType.IQ2_S: decode_iq2_s,
    GGMLType.IQ3_XXS: decode_iq3_xxs,
    GGMLType.IQ3_S: decode_iq3_s,
}
