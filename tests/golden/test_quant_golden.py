"""Decoders and encoders against ggml's own C code: goldens, and asked again (llama_cpp)."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from rocmforge.quant.encode import encode
from rocmforge.quant.formats import FORMATS, GGMLType
from rocmforge.quant.reference import decode
from tests.golden.make_quant import (
    BY_ERROR,
    GOLDEN,
    N_BLOCKS,
    N_VALUES,
    ask_ggml,
    encoder_values,
    sha256,
)
from tests.support.quant_blocks import BLOCK_TYPES, random_blocks

ANSWER = json.loads(GOLDEN.read_text())
SAME_BYTES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


def test_sizes():
    ours = {form.name: [form.block_size, form.block_bytes] for form in FORMATS.values()}
    assert ours == ANSWER["sizes"]


def test_every_block_type_is_covered():
    assert set(ANSWER["decoded"]) == set(BLOCK_TYPES) - {"Q8_1"}


@pytest.mark.parametrize("name", ANSWER["decoded"])
def test_decoders_bit_for_bit(name):
    golden = ANSWER["decoded"][name]
    blocks = random_blocks(name, N_BLOCKS)
    assert sha256(blocks) == golden["blocks_sha256"], "these are not the golden's blocks"
    type_ = GGMLType[name]
    values = decode(type_, blocks.tobytes(), N_BLOCKS * FORMATS[type_].block_size)
    first = np.frombuffer(base64.b64decode(golden["first"]), "<f4")
    assert values[: len(first)].tolist() == first.tolist()
    assert sha256(values.astype("<f4")) == golden["values_sha256"]


def test_q8_1_blocks_of_ggml():
    """ggml decodes no Q8_1. Its encoder takes scale and levels as that of Q8_0 does, so that both
    must decode alike."""
    values = encoder_values()
    raw = base64.b64decode(ANSWER["encoded"]["Q8_1"]["blocks"])
    expected = decode(GGMLType.Q8_0, encode(GGMLType.Q8_0, values), N_VALUES)
    assert np.array_equal(decode(GGMLType.Q8_1, raw, N_VALUES), expected)


@pytest.mark.parametrize("name", SAME_BYTES)
def test_encoders_byte_for_byte(name):
    values = encoder_values()
    assert sha256(values) == ANSWER["encoder_values_sha256"], "these are not the golden's values"
    raw = np.frombuffer(encode(GGMLType[name], values), np.uint8)
    assert sha256(raw) == ANSWER["encoded"][name]["blocks_sha256"]


@pytest.mark.parametrize("name", BY_ERROR)
def test_searching_encoders_lose_little_to_ggml(name):
    """What is asked of a search of our own: per super-block at most 1.5 dB, and over all at most
    0.5 dB more noise than ggml's."""
    values = encoder_values()
    decoded = decode(GGMLType[name], encode(GGMLType[name], values), N_VALUES)
    errors = np.square(decoded.astype(np.float64) - values).reshape(-1, 256).sum(1)
    theirs = np.array(ANSWER["encoded"][name]["squared_errors"])
    assert (errors[theirs == 0] == 0).all()
    ratios = errors[theirs > 0] / theirs[theirs > 0]
    assert ratios.max() < 10**0.15
    # Rows differ in size by orders of magnitude: the mean of ratios lets each count.
    assert ratios.mean() < 10**0.05


@pytest.mark.llama_cpp
def test_ggml_still_says_so():
    answer = json.loads(json.dumps(ask_ggml()))
    assert answer | {"version": ""} == ANSWER | {"version": ""}
