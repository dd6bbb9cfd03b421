"""The files of golden logits of the tiny random models, and how close one has to come to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.random_model_cases import CASES, Case
from tests.support.random_models import weights_sha256

TRANSFORMERS_GOLDEN = Path(__file__).with_name("logits_transformers.json")
LLAMA_GOLDEN = Path(__file__).with_name("logits_llama.json")
LLAMA_CASES = tuple(case for case in CASES if case.in_llama_cpp)

# Sums of a few hundred float32 products, twice ten of them in a row, are off by about 1e-7 of their
# size each; squared and amplified by saturated softmaxes that stays below 1e-12. 1e-6 is what users
# are promised: a thousandth of the amplitude.
FLOAT_TOLERANCE = 1e-6
# Rounding 32 (256) normal values to steps of max/127 adds noise of (max/127)²/12 = 3e-5 (5e-5) of
# their variance. Some twelve products in a row, of which those behind swiglu have three times
# larger outliers, make 5e-4.
ROUNDED_TOLERANCE = 1e-3
# llama.cpp rounds the activations before an F16 product to 11 bits, which stays below 1e-6, but
# before a BF16 product to 8 bits: a step 8 times larger, squared 64.
BF16_TOLERANCE = 64e-6
# llama.cpp and we round blocks of 256 to the same integers, except for ties that earlier sums
# decide. One integer that is off by 1 is one of 256 steps: 12 · 5e-5 / 256 = 2e-6 of a block.
SAME_ROUNDING_TOLERANCE = 1e-5


def transformers_tolerance(case: Case, *, exact: bool) -> float:
    """transformers never rounds activations; `exact`: neither do we."""
    return FLOAT_TOLERANCE if exact or not case.is_rounded else ROUNDED_TOLERANCE


def llama_tolerance(case: Case, *, exact: bool) -> float:
    """llama.cpp rounds the activations of all types but F32; we not those of float types."""
    if case.type.endswith("_K") and not exact:
        return SAME_ROUNDING_TOLERANCE
    if case.type == "BF16":
        return BF16_TOLERANCE
    return FLOAT_TOLERANCE if case.is_float else ROUNDED_TOLERANCE


def load(path: Path) -> dict[str, Any]:
    """A golden file."""
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def write(
    path: Path,
    facts: dict[str, str],
    cases: tuple[Case, ...],
    logits: Callable[[Case], np.ndarray],
) -> None:
    """Write a golden file: `facts` say who answered, `logits` asks. Seven digits: 1e-14 of the
    squares that are compared."""
    lines = []
    for case in cases:
        rows = [[float(f"{value:.7g}") for value in row] for row in logits(case)]
        entry = {"weights_sha256": weights_sha256(case), "logits": rows}
        lines.append(f"{json.dumps(case.name)}: {json.dumps(entry)}")
        print(case.name)
    head = json.dumps(facts, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "cases": {{\n' + ",\n".join(lines) + "\n}}\n")
