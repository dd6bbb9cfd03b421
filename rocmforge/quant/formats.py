"""One row per ggml tensor type: its id in GGUF files, values per block and bytes per block.

Ids and sizes are those of ggml's public headers (ggml.h `enum ggml_type`, ggml-common.h block
structs).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from rocmforge.errors import InvalidTensorShape, UnsupportedModelFormat


class GGMLType(IntEnum):
    """Tensor types with ggml's names and ids."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41


@dataclass(frozen=True)
class Format:
    """How a type is stored: rows are whole blocks of `block_size` values in `block_bytes` bytes."""

    type: GGMLType
    block_size: int
    block_bytes: int

    @property
    def name(self) -> str:
        """ggml's name, such as `Q4_K`."""
        return self.type.name


_SIZES = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "F64": (1, 8),
    "I8": (1, 1),
    "I16": (1, 2),
    "I32": (1, 4),
    "I64": (1, 8),
    "Q4_0": (32, 2 + 16),
    "Q4_1": (32, 4 + 16),
    "Q5_0": (32, 2 + 4 + 16),
    "Q5_1": (32, 4 + 4 + 16),
    "Q8_0": (32, 2 + 32),
    "Q8_1": (32, 4 + 32),
    "Q2_K": (256, 16 + 64 + 4),
    "Q3_K": (256, 32 + 64 + 12 + 2),
    "Q4_K": (256, 4 + 12 + 128),
    "Q5_K": (256, 4 + 12 + 32 + 128),
    "Q6_K": (256, 128 + 64 + 16 + 2),
    "Q8_K": (256, 4 + 256 + 32),
    "IQ2_XXS": (256, 2 + 64),
    "IQ2_XS": (256, 2 + 64 + 8),
    "IQ2_S": (256, 2 + 64 + 16),
    "IQ3_XXS": (256, 2 + 96),
    "IQ3_S": (256, 2 + 64 + 8 + 32 + 4),
    "IQ1_S": (256, 2 + 32 + 16),
    "IQ1_M": (256, 32 + 16 + 8),
    "IQ4_NL": (32, 2 + 16),
    "IQ4_XS": (256, 2 + 2 + 4 + 128),
    "TQ1_0": (256, 48 + 4 + 2),
    "TQ2_0": (256, 64 + 2),
    "MXFP4": (32, 1 + 16),
    "NVFP4": (64, 4 + 32),
    "Q1_0": (128, 2 + 16),
}

FORMATS: dict[GGMLType, Format] = {
    GGMLType[name]: Format(GGMLType[name], *sizes) for name, sizes in _SIZES.items()
}


def format_by_name(name: str) -> Format:
    """The format called `name`; raises UnsupportedModelFormat for any other."""
    try:
        return FORMATS[GGMLType[name]]
    except KeyError:
        raise UnsupportedModelFormat(f"there is no tensor type {name!r}") from None


def row_bytes(type_: GGMLType, cols: int) -> int:
    """Bytes of one row of `cols` values; raises InvalidTensorShape when they fill no whole
    blocks."""
    form = FORMATS[type_]
    if cols % form.block_size:
        raise InvalidTensorShape(
            f"a {form.name} row must be a multiple of {form.block_size} values, got {cols}"
        )
    return cols // form.block_size * form.block_bytes
