"""`rocmforge models`: which models can be named here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rocmforge.cli import options as o
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.model_source import EMBEDDED_ALIAS, cached_hub_models


def models_command(
    config: o.ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the embedded model, the aliases of the configuration file, and downloaded hub models."""
    rows = list(_rows(o.settings_of(config).aliases))
    if as_json:
        keys = ("name", "source", "bytes")
        typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    table = Table("name", "what it is", "size", box=None)
    for name, source, size in rows:
        table.add_row(name, source, "-" if size is None else f"{size / 1e6:,.1f} MB")
    Console().print(table)


def _rows(aliases: dict[str, str]) -> Iterator[tuple[str, str, int | None]]:
    yield EMBEDDED_ALIAS, str(EMBEDDED_MODEL_PATH), EMBEDDED_MODEL_PATH.stat().st_size
    for name, target in sorted(aliases.items()):
        path = Path(target).expanduser()
        yield name, target, path.stat().st_size if path.is_file() else None
    for name, path in cached_hub_models():
        yield name, str(path), path.stat().st_size
