"""Stands in for llama.cpp beside benchmarks/compare.py: every turn takes the time that it is told.

python scripted_peer.py BENCHMARKS_FOLDER SECONDS
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Serve; the folder is where the protocol lives."""
    sys.path.insert(0, sys.argv[1])
    from peers import serve

    seconds = float(sys.argv[2])
    held = {}

    def load(**asked):
        held.update(asked)
        os.write(1, b"what a library prints\n")
        return {
            "version": "scripted 1",
            "system_info": "none",
            "buffers": [],
            "threads": asked["threads"],
        }

    def prompt(n_tokens):
        assert n_tokens <= held["n_ctx"]
        return {"seconds": seconds}

    def generate(n_sequences, n_past, n_steps):
        assert n_sequences in held["n_seq"]
        assert n_past + n_steps <= held["n_ctx"]
        return {"seconds": seconds, "n_past": n_past}

    serve({"load": load, "prompt": prompt, "generate": generate})


if __name__ == "__main__":
    main()
