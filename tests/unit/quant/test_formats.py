"""The table of formats against ggml's sizes, as the gguf package publishes them."""

from __future__ import annotations

import gguf
import pytest

from rocmforge.errors import InvalidTensorShape, UnsupportedModelFormat
from rocmforge.quant.formats import FORMATS, GGMLType, format_by_name, row_bytes

# The package still has the size that block_q8_1 had with a float32 scale and sum (4 + 4 + 32).
# In ggml-common.h both are F16 and a static_assert says 2 * sizeof(ggml_half) + QK8_1;
# tests/golden/quant.json has what ggml_type_size() answers.
STALE = {"Q8_1": (32, 40)}


def test_ids_and_names_are_ggmls():
    theirs = {type_.name: int(type_) for type_ in gguf.GGMLQuantizationType}
    assert {type_.name: int(type_) for type_ in GGMLType} == theirs


def test_every_type_has_a_row():
    assert set(FORMATS) == set(GGMLType)
    assert all(form.type is type_ for type_, form in FORMATS.items())


@pytest.mark.parametrize("type_", GGMLType, ids=lambda type_: type_.name)
def test_sizes_are_ggmls(type_):
    theirs = tuple(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_.name]])
    if type_.name in STALE:
        assert theirs == STALE[type_.name]
        theirs = (32, 36)
    assert (FORMATS[type_].block_size, FORMATS[type_].block_bytes) == theirs


def test_row_bytes():
    assert row_bytes(GGMLType.F32, 7) == 28
    assert row_bytes(GGMLType.Q8_0, 64) == 68
    assert row_bytes(GGMLType.Q6_K, 512) == 420
    with pytest.raises(InvalidTensorShape, match=r"Q4_K row must be a multiple of 256 .* got 128"):
        row_bytes(GGMLType.Q4_K, 128)


def test_formats_by_name():
    assert format_by_name("Q4_K").type is GGMLType.Q4_K
    with pytest.raises(UnsupportedModelFormat, match="'Q9_Z'"):
        format_by_name("Q9_Z")
