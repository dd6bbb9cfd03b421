"""The model card, the measured results, the goldens and the shipped file belong together."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from rocmforge.embedded import EMBEDDED_MODEL_PATH

ROOT = Path(__file__).resolve().parents[2]
CARD = EMBEDDED_MODEL_PATH.with_name("MODEL_CARD.md").read_text()
RESULTS = json.loads((ROOT / "training" / "results.json").read_text())
MAX_BYTES = 4_000_000
MIN_ACCURACY = 0.8


def shown(right: int, asked: int) -> str:
    return f"{100 * right / asked:.1f} % ({right} of {asked})"


def test_file_is_small_and_is_the_one_measured() -> None:
    data = EMBEDDED_MODEL_PATH.read_bytes()
    assert len(data) == RESULTS["file_bytes"] <= MAX_BYTES
    assert hashlib.sha256(data).hexdigest() == RESULTS["sha256"]


def test_card_names_the_file() -> None:
    assert RESULTS["sha256"] in CARD
    for key in ("parameters", "file_bytes", "trained_tokens", "learnt_tokens", "steps"):
        assert f"{RESULTS[key]:,}".replace(",", " ") in CARD, key


def test_card_states_the_measured_accuracies() -> None:
    rows = dict(re.findall(r"^\| (\w+) \|.*\| ([\d.]+ % \(\d+ of \d+\)) \|$", CARD, re.MULTILINE))
    assert rows == {name: shown(**score) for name, score in RESULTS["held_out"].items()}


def test_promised_skills_work() -> None:
    for name in ("greeting", "fact", "addition", "json", "tool_call"):
        score = RESULTS["held_out"][name]
        assert score["right"] / score["asked"] >= MIN_ACCURACY, name


def test_goldens_are_of_this_file() -> None:
    golden = json.loads((ROOT / "tests" / "golden" / "embedded_greedy.json").read_text())
    assert golden["model_sha256"] == RESULTS["sha256"]
