"""benchmarks/kernels.py runs and writes what it says."""

from __future__ import annotations

import json
import subprocess
import sys

from rocmforge.backends.cpu import KERNEL_TYPES
from tests.support.source_tree import ROOT


def run_benchmark(*options):
    return subprocess.run(
        [sys.executable, "benchmarks/kernels.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_all_kernels_are_timed(tmp_path):
    path = tmp_path / "kernels.json"
    size = ["--rows", "64", "--cols", "256", "--footprint-mib", "1", "--contexts", "40"]
    turns = ["--tokens", "1,5", "--turns", "3", "--turn-ms", "0.1", "--threads", "1,2"]
    done = run_benchmark(*size, *turns, "--isas", "scalar", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "attention f16" in done.stdout
    report = json.loads(path.read_text("utf-8"))
    results = report["results"]
    # Two batch sizes of every format, two of attention; each with one thread and with two.
    assert len(results) == 2 * 2 * (len(KERNEL_TYPES) + 1)
    assert {r["case"]["kernel"].removeprefix("matmul ") for r in results} == {
        *KERNEL_TYPES,
        "attention f16",
    }
    for r in results:
        assert r["ms"] > 0
        assert abs(r["gop_per_s"] * r["ms"] * 1e6 / r["case"]["n_operations"] - 1) < 1e-6
        streams = r["case"]["kernel"] != "attention f16" and r["case"]["n_tokens"] == 1
        assert (r["of_read"] is not None) == streams


def test_a_format_without_a_kernel_is_refused():
    done = run_benchmark("--formats", "Q2_K")
    assert done.returncode == 2
    assert "no kernel multiplies Q2_K" in done.stderr
