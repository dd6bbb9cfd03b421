"""docs/cli.md and docs/python-api.md say what there is: every command, option and method."""

from __future__ import annotations

import re
from pathlib import Path

import typer

import rocmforge as api
from rocmforge.cli.main import command_line

ROOT = Path(__file__).parents[3]
CLI = (ROOT / "docs" / "cli.md").read_text("utf-8")
PYTHON = (ROOT / "docs" / "python-api.md").read_text("utf-8")


def commands():
    return typer.main.get_command(command_line()).commands


def section(name):
    """The part of docs/cli.md below the command's heading."""
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", CLI, re.M | re.S)
    assert found, f"docs/cli.md has no heading for {name}"
    return found[1]


def documented(text):
    """Every option written as code, such as `--json` or `-n, --max-tokens N`."""
    code = " ".join(re.findall(r"`([^`]+)`", text))
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", code))


def test_every_command_has_a_heading():
    assert set(commands()) <= set(re.findall(r"^## (\w+)$", CLI, re.M))


def test_every_option_is_documented_and_no_other():
    common = documented(section("Options"))
    for name, command in commands().items():
        options = {
            o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")
        }
        own = documented(section(name))
        assert options - own - common == set(), name
        assert own - options == set(), name
    everything = {o for c in commands().values() for p in c.params for o in p.opts}
    everything |= {"-h", "--help"}
    assert common <= everything


def test_python_examples_run(monkeypatch, tiny_path, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("model.gguf").write_bytes(tiny_path.read_bytes())
    for example in re.findall(r"```python\n(.*?)```", PYTHON, re.S):
        exec(compile(example, "python-api.md", "exec"), {})


def test_every_public_method_is_documented():
    names = {name for name in vars(api.Model) if not name.startswith("_")}
    missing = {name for name in names if f"`{name}" not in PYTHON}
    assert missing == set()
