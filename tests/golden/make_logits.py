"""Writes logits_transformers.json: what transformers says about the tiny random models.

Run with a Python that has torch, transformers and gguf, from the repository root:
    python -m tests.golden.make_logits
"""

from __future__ import annotations

from tests.golden import transformers_oracle
from tests.golden.logits_golden import TRANSFORMERS_GOLDEN, write
from tests.support.random_model_cases import CASES

FACTS = {
    "oracle": transformers_oracle.ORACLE,
    "version": transformers_oracle.VERSION,
    "script": "tests/golden/make_logits.py",
    "settings": "float64, eager attention, weights decoded by the gguf package",
}

if __name__ == "__main__":
    write(TRANSFORMERS_GOLDEN, FACTS, CASES, transformers_oracle.logits)
