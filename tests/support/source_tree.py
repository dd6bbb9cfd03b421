"""The package's own source, parsed once, for the structure tests."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rocmforge"


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, text and syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def layer(self) -> str:
        """The folder (or leaf file) directly below the package: `server`, `errors`, …"""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else "rocmforge"

    def imports(self) -> list[tuple[str, bool]]:
        """(dotted name, only for type checking) of every import, those inside functions too."""
        found: list[tuple[str, bool]] = []
        _collect(self.tree, False, found)
        return found


def _collect(node: ast.AST, typing_only: bool, found: list[tuple[str, bool]]) -> None:
    if isinstance(node, ast.Import):
        found += [(alias.name, typing_only) for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        found += [(f"{node.module}.{alias.name}", typing_only) for alias in node.names]
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        typing_only = True
    for child in ast.iter_child_nodes(node):
        _collect(child, typing_only, found)


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the package."""
    return tuple(_parse(path) for path in sorted(PACKAGE.rglob("*.py")))


def _parse(path: Path) -> Module:
    text = path.read_text("utf-8")
    relative = path.relative_to(ROOT).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return Module(".".join(parts), path, text, ast.parse(text))
