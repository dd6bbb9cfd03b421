"""benchmarks/serve.py runs and writes what it says; our own server stands in for llama.cpp's."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.source_tree import ROOT


def run_benchmark(*options):
    return subprocess.run(
        [sys.executable, "benchmarks/serve.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_both_routes_beside_the_engine_alone(tmp_path):
    path = tmp_path / "serve.json"
    sizes = ["--clients", "3", "--prompt-tokens", "8", "--answer-tokens", "4", "--turns", "2"]
    done = run_benchmark(*sizes, "--ctx", "256", "--threads", "1", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "outside of the program" in done.stdout
    report = json.loads(path.read_text("utf-8"))
    assert [r["scenario"] for r in report["results"]] == ["completions", "chat"]
    assert report["in_process"]["step_ms"] > report["in_process"]["outside_ms"] > 0
    for result in report["results"]:
        http, alone = result["sides"].values()
        assert list(result["sides"]) == ["HTTP", "in process"]
        assert set(http["cpu_us_per_token"]) == {"server", "engine", "clients"}
        assert http["prompt_tokens"] == alone["prompt_tokens"]
        turns = result["tokens_per_s"]
        ratios = [a / b for a, b in zip(turns["HTTP"], turns["in process"], strict=True)]
        assert result["ratio"]["low"] == min(ratios)
    assert report["results"][0]["sides"]["HTTP"]["prompt_tokens"] == 8


def test_a_shared_system_prompt(tmp_path):
    """The stand-in takes llama-server's options and runs ours."""
    stand_in, path = tmp_path / "llama-server", tmp_path / "serve.json"
    stand_in.write_text(
        f"#!{sys.executable}\n"
        "import runpy, sys\n"
        "at = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "assert (at['-np'], at['-c'], at['-t']) == ('3', '768', '1'), at\n"
        "sys.argv = ['rocmforge', 'serve', at['-m'], '--host', at['--host'], '--port',\n"
        "            at['--port'], '--threads', at['-t'], '--ctx', '256']\n"
        "runpy.run_module('rocmforge.cli.main', run_name='__main__')\n"
    )
    stand_in.chmod(0o755)
    sizes = ["--clients", "3", "--shared-tokens", "48", "--shared-answer-tokens", "2"]
    common = ["--turns", "1", "--ctx", "256", "--threads", "1", "--routes", "none"]
    done = run_benchmark(*sizes, *common, "--llama-server", str(stand_in), "--json", str(path))
    assert done.returncode == 0, done.stderr
    first, again = json.loads(path.read_text("utf-8"))["results"]
    assert (first["scenario"], again["scenario"]) == ("shared, first", "shared, again")
    assert list(first["sides"]) == ["rocmforge", "llama.cpp"]
    assert first["sides"]["rocmforge"]["prompt_tokens"] > 48
    # Known prompts are found in the cache, but for the last block.
    assert again["sides"]["rocmforge"]["cached_tokens"] >= 48


def test_a_server_that_does_not_start_is_told(tmp_path):
    done = run_benchmark("--routes", "none", "--llama-server", "/bin/false", "--threads", "1")
    assert done.returncode != 0
    assert "llama.cpp did not start" in done.stderr


def test_an_unknown_route_is_refused():
    done = run_benchmark("--routes", "chats")
    assert done.returncode == 2
    assert "unknown: chats" in done.stderr


def test_a_model_that_is_not_there_is_told():
    done = run_benchmark("no-such.gguf")
    assert done.returncode == 1
    assert done.stderr.startswith("serve.py: there is no model file 'no-such.gguf'")
