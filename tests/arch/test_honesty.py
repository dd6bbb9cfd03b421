"""No hidden failures, no unfinished things, no names of particular machines; skips are listed."""

from __future__ import annotations

import ast
import re
import subprocess

from tests.support.source_tree import ROOT, modules

MAX_BROAD_HANDLERS = 10
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|for now|simplified|placeholder)\b")
VAGUE_FILES = re.compile(r"(^|_)(utils?|helpers?|misc|common|new|old|v2|phase\d*)(_|\.|$)")


def broad_handlers() -> list[tuple[str, int, bool]]:
    """(file, line, has a comment with the reason) of every handler of Exception or more."""
    found = []
    for module in modules():
        lines = module.text.splitlines()
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = ast.unparse(node.type) if node.type else ""
            if not names or re.search(r"\b(Exception|BaseException)\b", names):
                near = "\n".join(lines[max(0, node.lineno - 3) : node.lineno + 2])
                found.append((str(module.path.relative_to(ROOT)), node.lineno, "#" in near))
    return found


def test_broad_handlers_are_few_and_reasoned():
    handlers = broad_handlers()
    assert len(handlers) < MAX_BROAD_HANDLERS, handlers
    assert all(reasoned for _, _, reasoned in handlers), handlers


def test_no_bare_except():
    for module in modules():
        for node in ast.walk(module.tree):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), module.path


def tracked(*patterns: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split() if (ROOT / name).is_file()]


def test_nothing_unfinished():
    for name in tracked("rocmforge/*.py", "native/*", "Makefile"):
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1):
            assert not UNFINISHED.search(line), f"{name}:{number}: {line.strip()}"


def test_file_names_say_what_is_inside():
    for name in tracked("*.py", "*.cc", "*.h"):
        assert not VAGUE_FILES.search(name.rsplit("/", 1)[-1]), name


def test_no_path_of_a_machine():
    # Put together so that this file does not contain what it looks for.
    home = re.compile("|".join([r"/ro" + r"ot/", r"/ho" + r"me/\w+/", r"/wo" + r"rk/"]))
    for name in tracked("*.py", "*.md", "*.toml", "Makefile", ".ci/*", "*.txt", "*.cc", "*.h"):
        found = home.search((ROOT / name).read_text("utf-8"))
        assert not found, f"{name}: {found[0]}"


def test_skips_are_listed():
    listed = {
        line.split("#")[0].strip()
        for line in (ROOT / "tests" / "skips.txt").read_text().splitlines()
        if line.split("#")[0].strip()
    }
    pattern = re.compile(r"pytest\.(skip|importorskip|xfail)\b|mark\.(skip|skipif|xfail)\b")
    used = {
        name
        for name in tracked("tests/*.py")
        if pattern.search((ROOT / name).read_text("utf-8")) and name != "tests/arch/test_honesty.py"
    }
    assert used == listed
