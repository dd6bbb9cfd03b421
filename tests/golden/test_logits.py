"""Logits of tiny random models of every family and format: each backend against transformers and
llama.cpp, as their golden files remember them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rocmforge.backends.cpu import CpuBackend
from rocmforge.backends.ops import Backend
from rocmforge.backends.reference import ReferenceBackend
from rocmforge.backends.select import available_isas
from tests.golden.logits_golden import (
    FLOAT_TOLERANCE,
    LLAMA_CASES,
    LLAMA_GOLDEN,
    TRANSFORMERS_GOLDEN,
    llama_tolerance,
    load,
    transformers_tolerance,
)
from tests.support.logits import file_logits, nmse
from tests.support.random_model_cases import CASES, Case
from tests.support.random_models import weights_sha256, write_case

TRANSFORMERS = load(TRANSFORMERS_GOLDEN)
LLAMA = load(LLAMA_GOLDEN)
# exact: the numpy reference without rounded activations.
BACKENDS = ("exact", "reference", *available_isas())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for case in CASES:
        write_case(path / case.name, case)
    return path


def make_backend(name: str) -> Backend:
    if name in ("exact", "reference"):
        return ReferenceBackend(exact=name == "exact")
    return CpuBackend(n_threads=2, isa=name)


def logits(folder: Path, case: Case, backend_name: str, kv_type: str = "f32") -> np.ndarray:
    backend = make_backend(backend_name)
    path = folder / case.name
    found = file_logits(path, backend, case.token_ids, case.positions, kv_type)
    backend.close()
    return found


def check(found: np.ndarray, golden: dict, case: Case, tolerance: float) -> None:
    expected = np.array(golden["cases"][case.name]["logits"])
    error = nmse(found, expected)
    row, token = np.unravel_index(np.abs(found - expected).argmax(), expected.shape)
    assert error < tolerance, (
        f"NMSE {error:.2e}; worst at position {case.positions[row]}, token {token}: "
        f"{found[row, token]:.6f} instead of {expected[row, token]:.6f}"
    )


@pytest.mark.parametrize(
    ("golden", "cases"),
    [(TRANSFORMERS, CASES), (LLAMA, LLAMA_CASES)],
    ids=["transformers", "llama"],
)
def test_goldens_name_their_origin_and_weights(golden: dict, cases: tuple[Case, ...]):
    assert golden["oracle"]
    assert golden["version"]
    assert Path(golden["script"]).is_file()
    weights = {name: entry["weights_sha256"] for name, entry in golden["cases"].items()}
    # Another sum means that tests/support/random_models.py makes other weights than then.
    assert weights == {case.name: weights_sha256(case) for case in cases}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_against_transformers(folder: Path, case: Case, backend: str):
    tolerance = transformers_tolerance(case, exact=backend == "exact")
    check(logits(folder, case, backend), TRANSFORMERS, case, tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", LLAMA_CASES, ids=lambda case: case.name)
def test_against_llama_cpp(folder: Path, case: Case, backend: str):
    tolerance = llama_tolerance(case, exact=backend == "exact")
    check(logits(folder, case, backend), LLAMA, case, tolerance)


# A cache in F16 keeps 11 bits: noise of (2^-11)²/12 = 2e-8 of the keys' and values' squares, which
# saturated softmaxes amplify some tenfold. The bound is the one for float all the same.
@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("name", ["llama-gqa", "mistral-window", "qwen2", "qwen3"])
def test_with_a_cache_in_f16(folder: Path, name: str, isa: str):
    case = next(case for case in CASES if case.name == name)
    found = logits(folder, case, isa, "f16")
    check(found, TRANSFORMERS, case, FLOAT_TOLERANCE)
    # It really was another cache.
    assert not np.array_equal(found, logits(folder, case, isa, "f32"))
