"""Random blocks of every quantised ggml type, with any value in their scale fields.

All bytes of a block are free but those of its scales: random F16 bits are NaN or infinite now and
then, so scales are set apart. Offsets are those of the block structs in ggml-common.h.
"""

from __future__ import annotations

import zlib

import numpy as np

from rocmforge.quant.formats import FORMATS, GGMLType

# Where the floating-point fields of a block lie: type → ((byte offset, dtype), ...).
SCALE_FIELDS = {
    "Q4_0": ((0, "<f2"),),
    "Q4_1": ((0, "<f2"), (2, "<f2")),
    "Q5_0": ((0, "<f2"),),
    "Q5_1": ((0, "<f2"), (2, "<f2")),
    "Q8_0": ((0, "<f2"),),
    "Q8_1": ((0, "<f2"), (2, "<f2")),
    "Q8_K": ((0, "<f4"),),
    "Q2_K": ((80, "<f2"), (82, "<f2")),
    "Q3_K": ((108, "<f2"),),
    "Q4_K": ((0, "<f2"), (2, "<f2")),
    "Q5_K": ((0, "<f2"), (2, "<f2")),
    "Q6_K": ((208, "<f2"),),
    "IQ1_S": ((0, "<f2"),),
    "IQ2_XXS": ((0, "<f2"),),
    "IQ2_XS": ((0, "<f2"),),
    "IQ2_S": ((0, "<f2"),),
    "IQ3_XXS": ((0, "<f2"),),
    "IQ3_S": ((0, "<f2"),),
    "IQ4_NL": ((0, "<f2"),),
    "IQ4_XS": ((0, "<f2"),),
    "TQ1_0": ((52, "<f2"),),
    "TQ2_0": ((64, "<f2"),),
    "Q1_0": ((0, "<f2"),),
}
BLOCK_TYPES = tuple(form.name for form in FORMATS.values() if form.block_size > 1)
# IQ1_M keeps its F16 scale in the top nibbles of four words; MXFP4 and NVFP4 have bytes as scales.
BYTE_SCALES = {"MXFP4": 1, "NVFP4": 4}

F16_SCALES = {
    "negative": -0.37,
    "zero": 0.0,
    "negative zero": -0.0,
    "subnormal": 2.0**-24,
    "largest subnormal": 2.0**-14 - 2.0**-24,
    "largest": 65504.0,
    "infinite": np.inf,
    "negative infinite": -np.inf,
    "nan": np.nan,
}


def random_blocks(type_name: str, n_blocks: int, seed: int = 0) -> np.ndarray:
    """uint8 [n_blocks, block_bytes]: every byte random, scales finite, of both signs, of many
    magnitudes."""
    form = FORMATS[GGMLType[type_name]]
    # Philox gives the same integers everywhere and always.
    bits = np.random.Philox(key=[zlib.crc32(type_name.encode()), seed])
    n_bytes = n_blocks * form.block_bytes
    raw = bits.random_raw(-(-n_bytes // 8)).astype("<u8").view(np.uint8)[:n_bytes]
    blocks = raw.reshape(n_blocks, form.block_bytes).copy()
    words = bits.random_raw(2 * n_blocks).reshape(n_blocks, 2)
    for i in range(len(SCALE_FIELDS.get(type_name, ())) or (type_name == "IQ1_M")):
        # Any F16 bits but the top exponent, which is that of infinities and NaN.
        halves = (words[:, i] % np.uint64(0x7C00)).astype(np.uint16)
        halves |= ((words[:, i] >> np.uint64(63)) << np.uint64(15)).astype(np.uint16)
        set_scale(blocks, type_name, halves.view(np.float16), i)
    if type_name == "MXFP4":
        blocks[:, 0] = np.minimum(blocks[:, 0], 252)  # 12 · 2^124 is the largest finite value
    return blocks


def set_scale(blocks: np.ndarray, type_name: str, values, field: int = 0) -> None:
    """Put F16 `values` (one, or one per block) into the scale field of each block, in place."""
    halves = np.broadcast_to(np.asarray(values, np.float16), len(blocks))
    if type_name == "IQ1_M":
        words = blocks[:, 48:56].copy().view("<u2")
        nibbles = (halves.view(np.uint16)[:, None] >> np.array([0, 4, 8, 12], np.uint16)) & 15
        blocks[:, 48:56] = ((words & 0x0FFF) | (nibbles << 12)).astype("<u2").view(np.uint8)
        return
    offset, dtype = SCALE_FIELDS[type_name][field]
    raw = halves.astype(dtype)[:, None].view(np.uint8)
    blocks[:, offset : offset + raw.shape[1]] = raw
