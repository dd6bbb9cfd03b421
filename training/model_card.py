"""Write the model card from the measured results: `python -m training.model_card`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.evaluate import CHECKS

RESULTS_PATH = Path("training/results.json")
CARD_PATH = Path("rocmforge/embedded/MODEL_CARD.md")
TEMPLATE_PATH = Path(__file__).with_name("model_card_template.md")
TOOL_RESULT_NOTE = "results of tools, answered in a sentence"


def spaced(number: int) -> str:
    """A number with spaces between its thousands."""
    return f"{number:,}".replace(",", " ")


def row(name: str, score: dict[str, int]) -> str:
    """One line of the table."""
    held_out = TOOL_RESULT_NOTE if name == "tool_result" else CHECKS[name][2]
    share = 100 * score["right"] / score["asked"]
    return f"| {name} | {held_out} | {share:.1f} % ({score['right']} of {score['asked']}) |"


def card(results: dict[str, Any]) -> str:
    """The whole model card."""
    counts = ("file_bytes", "parameters", "trained_tokens", "learnt_tokens", "steps")
    return TEMPLATE_PATH.read_text().format(
        **{name: spaced(results[name]) for name in counts},
        sha256=results["sha256"],
        final_loss=results["final_loss"],
        training_minutes=round(results["training_seconds"] / 60),
        rows="\n".join(row(name, score) for name, score in results["held_out"].items()),
    )


def main() -> None:
    """Entry point."""
    CARD_PATH.write_text(card(json.loads(RESULTS_PATH.read_text())))


if __name__ == "__main__":
    main()
