"""benchmarks/sampling.py runs and writes what it says."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.source_tree import ROOT


def run_benchmark(*options):
    return subprocess.run(
        [sys.executable, "benchmarks/sampling.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_all_chains_are_timed(tmp_path):
    path = tmp_path / "sampling.json"
    sizes = ["--vocabs", "300,5000", "--batches", "2", "--threads", "1,2", "--step-ms", "10"]
    done = run_benchmark(*sizes, "--turns", "2", "--turn-ms", "0.1", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "of step" in done.stdout
    results = json.loads(path.read_text("utf-8"))["results"]
    chains = {r["case"]["chain"] for r in results}
    assert {"greedy", "usual", "default", "top-p"} <= chains
    # Peaked and flat rows, two vocabularies, two numbers of threads.
    assert len(results) == len(chains) * 2 * 2 * 2
    for r in results:
        n_logits = r["case"]["n_vocab"] * r["case"]["batch"]
        assert abs(r["ns_per_logit"] * n_logits / (r["ms"] * 1e6) - 1) < 1e-9
        assert abs(r["of_step"] * 10 / r["ms"] - 1) < 1e-9


def test_an_unknown_chain_is_refused():
    done = run_benchmark("--chains", "mirostat")
    assert done.returncode == 2
    assert "no chain is called mirostat" in done.stderr
