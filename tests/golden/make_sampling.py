"""Ask transformers for the distribution after its logits processors; writes sampling.json beside
this file.

Run with transformers and torch installed: python tests/golden/make_sampling.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CASES = [
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 0.8, "min_p": 0.1},
    {"temperature": 1.0, "repetition_penalty": 1.4},
    {"temperature": 0.9, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
]
N_VOCAB = 40
HISTORY = [3, 7, 7, 21, 39]


def distribution(logits: np.ndarray, case: dict[str, float]) -> list[float]:
    """Probabilities [V] by transformers, in the order that generate() applies its processors."""
    import torch
    from transformers import generation as g

    scores = torch.tensor(logits[None])
    ids = torch.tensor([HISTORY])
    chain = []
    if "repetition_penalty" in case:
        chain.append(g.RepetitionPenaltyLogitsProcessor(case["repetition_penalty"]))
    chain.append(g.TemperatureLogitsWarper(case["temperature"]))
    if "top_k" in case:
        chain.append(g.TopKLogitsWarper(int(case["top_k"])))
    if "top_p" in case:
        chain.append(g.TopPLogitsWarper(case["top_p"]))
    if "min_p" in case:
        chain.append(g.MinPLogitsWarper(case["min_p"]))
    for processor in chain:
        scores = processor(ids, scores)
    return torch.softmax(scores[0].double(), -1).tolist()


def main() -> None:
    """Write the golden."""
    import transformers

    rng = np.random.default_rng(5)
    rows = []
    for case in CASES:
        logits = (rng.standard_normal(N_VOCAB) * 2).astype(np.float32)
        rows.append({"case": case, "logits": logits.tolist(), "probs": distribution(logits, case)})
    golden = {
        "oracle": "transformers",
        "version": transformers.__version__,
        "script": "tests/golden/make_sampling.py",
        "history": HISTORY,
        "rows": rows,
    }
    Path(__file__).with_name("sampling.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
