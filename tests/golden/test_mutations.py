"""Leaving any one operation out, or part of it, moves the logits by more than 1e-2: what the
comparisons with the goldens would not notice, they would not test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rocmforge.backends.ops import Ops
from rocmforge.backends.reference import ReferenceBackend
from rocmforge.models.loading import load_model
from tests.golden.logits_golden import FLOAT_TOLERANCE, TRANSFORMERS_GOLDEN, load
from tests.golden.mutations import VARIANTS, MutatedOps, RecordingOps
from tests.support.logits import model_logits, nmse
from tests.support.random_model_cases import CASES, Case
from tests.support.random_models import write_case

NOTICEABLE = 1e-2
GOLDEN = load(TRANSFORMERS_GOLDEN)["cases"]
# No family calls it.
UNUSED = {"scale"}


class MutableModel:
    """A case on the exact reference, compared with its golden."""

    def __init__(self, path: Path, case: Case) -> None:
        self._case = case
        self._backend = ReferenceBackend(exact=True)
        self.model = load_model(write_case(path, case), self._backend)

    def error(self, forward: Any) -> float:
        found = model_logits(
            self.model,
            self._backend,
            self._case.token_ids,
            self._case.positions,
            "f32",
            forward,
        )
        return nmse(found, GOLDEN[self._case.name]["logits"])

    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        """The calls of its forward with their variants, after checking that it is right."""
        recorded: list[RecordingOps] = []

        def forward(ops: Any) -> None:
            recorded.append(RecordingOps(ops, self.model.spec))
            self.model.forward(recorded[0])

        assert self.error(forward) < FLOAT_TOLERANCE
        return recorded[0].calls

    def mutated_error(self, index: int, variant: Any) -> float:
        return self.error(
            lambda ops: self.model.forward(MutatedOps(ops, self.model.spec, index, variant))
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_operation_can_be_left_out_unnoticed(tmp_path: Path, case: Case):
    model = MutableModel(tmp_path / "model.gguf", case)
    errors = {
        f"call {index}, {name} {title}": model.mutated_error(index, variant)
        for index, (name, variants) in enumerate(model.calls())
        for title, variant in variants.items()
    }
    assert len(errors) >= 60
    unnoticed = {title: error for title, error in errors.items() if not error > NOTICEABLE}
    assert not unnoticed


def test_every_operation_is_mutated_somewhere(tmp_path: Path):
    exercised = set()
    for case in CASES:
        if case.type == "F32":
            calls = MutableModel(tmp_path / case.name, case).calls()
            exercised |= {(name, title) for name, variants in calls for title in variants}
    assert exercised == {(name, title) for name, titles in VARIANTS.items() for title in titles}
    operations = {name for name in vars(Ops) if not name.startswith("_")}
    assert operations == set(VARIANTS) | UNUSED
