"""The oracles of the golden logits, asked again: about the same weights, and about others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rocmforge.backends.reference import ReferenceBackend
from tests.golden.logits_golden import (
    FLOAT_TOLERANCE,
    LLAMA_CASES,
    LLAMA_GOLDEN,
    TRANSFORMERS_GOLDEN,
    llama_tolerance,
    load,
)
from tests.support.logits import file_logits, nmse
from tests.support.random_model_cases import CASES, Case
from tests.support.random_models import write_case


def reference_logits(folder: Path, case: Case, *, exact: bool) -> np.ndarray:
    path = write_case(folder / "model.gguf", case)
    backend = ReferenceBackend(exact=exact)
    return file_logits(path, backend, case.token_ids, case.positions, "f32")


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_transformers(tmp_path: Path, case: Case):
    from tests.golden import transformers_oracle

    golden = load(TRANSFORMERS_GOLDEN)["cases"][case.name]["logits"]
    # Both in float64 on all machines; the file keeps seven digits.
    assert nmse(transformers_oracle.logits(case), golden) < 1e-13
    other = replace(case, seed=case.seed + 1)
    expected = transformers_oracle.logits(other)
    assert nmse(reference_logits(tmp_path, other, exact=True), expected) < FLOAT_TOLERANCE


@pytest.mark.llama_cpp
@pytest.mark.parametrize("case", LLAMA_CASES, ids=lambda case: case.name)
def test_llama_cpp(tmp_path: Path, case: Case):
    from tests.golden import llama_oracle

    golden = load(LLAMA_GOLDEN)["cases"][case.name]["logits"]
    # Its kernels differ between machines, but no more than from ours.
    tolerance = llama_tolerance(case, exact=True)
    assert nmse(llama_oracle.logits(case), golden) < tolerance
    other = replace(case, seed=case.seed + 1)
    found = reference_logits(tmp_path, other, exact=False)
    assert nmse(found, llama_oracle.logits(other)) < tolerance
