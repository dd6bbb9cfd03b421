"""Writes logits_llama.json: what llama.cpp says about the tiny random models.

Run with a Python that has llama-cpp-python, from the repository root:
    python -m tests.golden.make_logits_llama
"""

from __future__ import annotations

from tests.golden import llama_oracle
from tests.golden.logits_golden import LLAMA_CASES, LLAMA_GOLDEN, write

FACTS = {
    "oracle": llama_oracle.ORACLE,
    "version": llama_oracle.VERSION,
    "script": "tests/golden/make_logits_llama.py",
    "settings": "one thread on the CPU, keys and values in F32, no flash attention",
}

if __name__ == "__main__":
    write(LLAMA_GOLDEN, FACTS, LLAMA_CASES, llama_oracle.logits)
