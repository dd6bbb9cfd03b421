"""benchmarks/compare.py: a whole run beside a scripted peer, its report, and what makes it fail."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import compare
import pytest
from comparison import Comparison, Work

from tests.support.source_tree import ROOT

SCRIPTED = ROOT / "tests" / "support" / "scripted_peer.py"
MEASURED = Comparison(10.0, 20.0, 0.5, 0.4, 0.6, 0.9, 0.3, 0.4)


def result(**changes):
    work = Work("prompt 256", 1, 256)
    return compare.Result("tiny", "Q4_0", work, replace(MEASURED, **changes), [])


def run_compare(*options):
    return subprocess.run(
        [sys.executable, "benchmarks/compare.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def scripted_python(tmp_path):
    """An interpreter that runs the scripted peer, whatever it is asked to run."""
    path = tmp_path / "python"
    command = [sys.executable, str(SCRIPTED), str(ROOT / "benchmarks"), "0.25"]
    path.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
    path.chmod(0o755)
    return path


def test_a_run_reports_all_turns(tmp_path, scripted_python):
    report_path = tmp_path / "report.json"
    done = run_compare(
        *(
            "--shape",
            "tiny",
            "--types",
            "Q4_0,MXFP4",
            "--launches",
            "2",
            "--turns",
            "2",
            "--threads",
            "1",
        ),
        *("--limit-s", "0.01", "--cache", str(tmp_path), "--json", str(report_path)),
        *("--peer-python", str(scripted_python)),
    )
    assert done.returncode == 0, done.stderr
    assert "generation 16" in done.stdout
    assert "scripted 1" in done.stdout
    report = json.loads(report_path.read_text("utf-8"))
    assert {"cpu", "cpu_flags", "cores", "memory_bytes", "commit", "date", "command"} <= set(report)
    assert report["versions"]["rocmforge"]
    assert [run["file_bytes"] > 0 for run in report["runs"]] == [True, True]
    assert [run["ours"]["threads"] for run in report["runs"]] == [1, 1]
    assert [(r["file_type"], r["work"]["name"]) for r in report["results"]] == [
        (file_type, name)
        for file_type in ("Q4_0", "MXFP4")
        for name in ("prompt 256", "generation 1", "generation 16")
    ]
    for r in report["results"]:
        assert len(r["rounds"]) == 4
        for turns in r["rounds"]:
            assert turns["theirs_s"] == 0.25
            assert turns["ours_s"] > 0
            assert turns["read_bytes_per_s"] > 0
        tokens = r["work"]["n_sequences"] * r["work"]["n_tokens"]
        assert r["comparison"]["theirs_tokens_per_s"] == pytest.approx(tokens / 0.25)
        assert r["comparison"]["ratio"] > 0


def test_a_missing_peer_says_how_to_get_it(tmp_path):
    done = run_compare("--peer-python", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "make bench-peer" in done.stderr


@pytest.mark.parametrize("option", ["--shape", "--types", "--work"])
def test_unknown_names_are_refused(option):
    done = run_compare(option, "Q2_X")
    assert done.returncode == 2
    assert "unknown: Q2_X" in done.stderr


def test_a_share_above_the_limit_fails():
    compare.check([result()])
    with pytest.raises(compare.NotMeasured, match="tiny Q4_0 prompt 256: 101% of reads"):
        compare.check([result(), result(read_share=1.01)])
    with pytest.raises(compare.NotMeasured, match="of multiply of the ISA in use"):
        compare.check([result(isa_multiply_share=1.2)])


def test_disturbed_turns_are_told():
    quiet = {"version": "quiet 1", "waited": 0.01, "idle": 0.0}
    assert compare.warnings([quiet, quiet | {"waited": None}]) == []
    (told,) = compare.warnings([quiet, quiet | {"waited": 0.2}])
    assert "waited for a core up to 20%" in told
    (told,) = compare.warnings([quiet, {"version": "busy 2", "waited": 0.0, "idle": 0.5}])
    assert told.startswith("busy 2 took 50% of a core")


@pytest.mark.llama_cpp
@pytest.mark.timeout(600)
def test_llama_cpp_runs_every_type(tmp_path):
    done = run_compare(
        *("--shape", "tiny,tiny-qwen2", "--types", ",".join(compare.FILE_TYPES), "--launches", "1"),
        *("--limit-s", "0.01", "--cache", str(tmp_path), "--peer-python", sys.executable),
    )
    assert done.returncode == 0, done.stderr
