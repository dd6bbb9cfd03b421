"""Reading fields out of quantised blocks, for all decoders. Blocks are uint8 [N, block_bytes]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def f16(blocks: Bytes, start: int) -> Floats:
    """The float16 at byte `start` of each block → float32 [N, 1]."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").astype(np.float32)


def f32(blocks: Bytes, start: int) -> Floats:
    """The float32 at byte `start` of each block → [N, 1]."""
    return np.ascontiguousarray(blocks[:, start : start + 4]).view("<f4").astype(np.float32)


def u16(blocks: Bytes, start: int, count: int) -> npt.NDArray[np.uint16]:
    """`count` little-endian 16-bit words from byte `start` → [N, count]."""
    return np.ascontiguousarray(blocks[:, start : start + 2 * count]).view("<u2")


def u32(blocks: Bytes, start: int, count: int) -> npt.NDArray[np.uint32]:
    """`count` little-endian 32-bit words from byte `start` → [N, count]."""
    return np.ascontiguousarray(blocks[:, start : start + 4 * count]).view("<u4")


def nibbles(packed: Bytes) -> Bytes:
    """[N, B] bytes → [N, 2B]: all low halves, then all high halves."""
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)


def interleaved_nibbles(packed: Bytes) -> Bytes:
    """[N, B] bytes → [N, 2B]: low half, high half of each byte in turn."""
    return np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=2).reshape(len(packed), -1)


def bit_signs(packed: Bytes) -> Floats:
    """[N, B] bytes → float32 [N, 8B] of ±1; a set bit means negative, lowest bit first."""
    bits = np.unpackbits(packed, axis=1, bitorder="little")
    return np.float32(1) - np.float32(2) * bits.astype(np.float32)
