"""`rocmforge bench`: how many tokens per second a model makes on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rocmforge.cli import options as o
from rocmforge.errors import InvalidConfiguration

if TYPE_CHECKING:
    from rocmforge.cli.speed import Speed
    from rocmforge.wire.protocol import EngineFacts


def bench_command(
    model: o.ModelArgument = None,
    n_prompt: Annotated[int, typer.Option("-p", "--prompt-tokens", help="Prompt tokens.")] = 256,
    n_gen: Annotated[int, typer.Option("-n", "--gen-tokens", help="Tokens to generate.")] = 32,
    batch: Annotated[str, typer.Option(help="Sequences at once; several: 1,4,16.")] = "1",
    repetitions: Annotated[int, typer.Option(help="Runs; the median counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: o.DeviceOption = None,
    isa: o.IsaOption = None,
    threads: o.ThreadsOption = None,
    kv_type: o.KvTypeOption = None,
    config: o.ConfigOption = None,
) -> None:
    """Measure prompt and generation speed: random tokens, greedy, warmed up, no server."""
    from rocmforge.cli.speed import bench_config, measure
    from rocmforge.engine.start import start_engine
    from rocmforge.observe.log import configure_logging

    sizes = _sizes(batch)
    for option, value in (("-p", n_prompt), ("-n", n_gen), ("--repetitions", repetitions)):
        if value < 1:
            raise InvalidConfiguration(f"{option} must be positive, got {value}")
    settings = o.settings_of(
        config,
        engine={
            "device": device,
            "isa": isa,
            "n_threads": threads,
            "cache": {"kv_type": kv_type},
        },
        defaults={"log": {"level": "error"}},
    )
    configure_logging(settings.log)
    path = o.model_path(model, settings)
    engine_config = bench_config(o.engine_config(path, settings), n_prompt, n_gen, max(sizes))
    engine, facts = start_engine(engine_config)
    speeds = [
        measure(engine, facts, n_prompt, n_gen, size, repetitions=repetitions) for size in sizes
    ]
    engine.close()
    if as_json:
        typer.echo(json.dumps(_report(path.name, facts, repetitions, speeds)))
    else:
        _print(path.name, facts, speeds)


def _sizes(text: str) -> list[int]:
    """Batch sizes of a text such as `1,4,16`."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InvalidConfiguration(
            f"--batch is a list of positive numbers such as 1,4,16, got {text}"
        )
    return sizes


def _report(name: str, facts: EngineFacts, repetitions: int, speeds: list[Speed]) -> dict[str, Any]:
    return {
        "model": name,
        "architecture": facts.architecture,
        "weight_types": facts.weight_types,
        "weight_bytes": facts.weight_bytes,
        "backend": facts.backend,
        "isa": facts.isa,
        "threads": facts.n_threads,
        "kv_type": facts.kv_type,
        "repetitions": repetitions,
        "results": [asdict(speed) for speed in speeds],
    }


def _print(name: str, facts: EngineFacts, speeds: list[Speed]) -> None:
    where = f"{facts.backend} {facts.isa}, {facts.n_threads} threads"
    table = Table(
        "batch", "prompt", "generated", "prompt t/s", "generation t/s", "ms per step", box=None
    )
    for speed in speeds:
        table.add_row(
            str(speed.batch),
            str(speed.n_prompt),
            str(speed.n_gen),
            f"{speed.prompt_tokens_per_second:,.1f}",
            f"{speed.generation_tokens_per_second:,.1f}",
            f"{speed.generation_ms_per_step:,.2f}",
        )
    console = Console()
    console.print(f"{name} ({facts.architecture}) on {where}", markup=False, highlight=False)
    console.print(table)
