"""Writes chat_template.json: what transformers makes of the templates and conversations.

Run with a Python that has transformers, from the repository root:
    PYTHONPATH=tests/golden python tests/golden/make_chat_template.py
"""

from __future__ import annotations

import importlib.metadata
import json

from chat_conversations import GOLDEN, cases
from chat_oracle import transformers_rendering

if __name__ == "__main__":
    content = {
        "oracle": f"transformers {importlib.metadata.version('transformers')}",
        "script": "tests/golden/make_chat_template.py",
        "rendered": {f"{t} / {c}": transformers_rendering(t, c) for t, c in cases()},
    }
    GOLDEN.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(GOLDEN, GOLDEN.stat().st_size)
