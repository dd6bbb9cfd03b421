"""`rocmforge inspect`: what is in a GGUF file, without loading it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from rocmforge.cli import options as o
from rocmforge.gguf.reader import GGUFFile, TensorInfo

_SHOWN_ITEMS = 6
_SHOWN_CHARS = 100


def inspect_command(
    model: o.ModelArgument = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: o.ConfigOption = None,
) -> None:
    """Show a file's metadata, tensor types and sizes; damaged files are refused with the reason."""
    path = o.model_path(model, o.settings_of(config))
    with GGUFFile.open(path, map_tensors=False) as file:
        facts = _facts(file)
        if as_json:
            facts["tensors"] = [_tensor_row(t) for t in file.tensors.values()]
            typer.echo(json.dumps(facts, ensure_ascii=False))
        else:
            _print(facts, list(file.tensors.values()) if tensors else [])


def _facts(file: GGUFFile) -> dict[str, Any]:
    infos = list(file.tensors.values())
    return {
        "files": [str(path) for path in file.shard_paths],
        "version": file.version,
        "alignment": file.alignment,
        "n_tensors": len(infos),
        "n_parameters": sum(_count(t) for t in infos),
        "tensor_bytes": sum(t.n_bytes for t in infos),
        "types": dict(Counter(t.type.name for t in infos)),
        "metadata": {key: _shown(value) for key, value in file.metadata.items()},
    }


def _count(tensor: TensorInfo) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count


def _tensor_row(tensor: TensorInfo) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "type": tensor.type.name,
        "shape": list(tensor.shape),
        "bytes": tensor.n_bytes,
    }


def _shown(value: Any) -> Any:
    """A metadata value short enough to print: long arrays and texts are cut, with their length."""
    if isinstance(value, str):
        cut = len(value) > _SHOWN_CHARS
        return f"{value[:_SHOWN_CHARS]}… ({len(value)} characters)" if cut else value
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    items = [_shown(value[i]) for i in range(min(len(value), _SHOWN_ITEMS))]
    if len(value) <= _SHOWN_ITEMS:
        return items
    return [*items, f"… ({len(value)} items)"]


def _print(facts: dict[str, Any], tensors: list[TensorInfo]) -> None:
    console = Console()
    head = Table(box=None, show_header=False)
    for key in ("files", "version", "n_tensors", "n_parameters", "tensor_bytes", "types"):
        value = facts[key]
        head.add_row(key, f"{value:,}" if isinstance(value, int) else _plain(value))
    console.print(head)
    table = Table("metadata", "value", box=None)
    for key, value in facts["metadata"].items():
        table.add_row(key, _plain(value))
    console.print(table)
    if tensors:
        listing = Table("tensor", "type", "shape", "bytes", box=None)
        for t in tensors:
            listing.add_row(t.name, t.type.name, "x".join(map(str, t.shape)), f"{t.n_bytes:,}")
        console.print(listing)


def _plain(value: Any) -> str:
    # repr keeps control characters of hostile files off the terminal; the brackets are rich's
    # markup.
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text.replace("[", r"\[")
