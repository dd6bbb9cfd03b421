"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rocmforge.config import EngineConfig, Settings, load_settings
from rocmforge.model_source import resolve_model
from rocmforge.request import SamplingParams

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="A .gguf file, an alias of the configuration file, or hf:owner/repo[:file]. "
        "Without one: the embedded model.",
        show_default=False,
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML configuration file.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto or cpu.")]
IsaOption = Annotated[
    str | None, typer.Option("--isa", help="Native kernels: auto, avx2 or scalar.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", "-t", help="CPU threads; default: every core.")
]
ContextOption = Annotated[
    int | None, typer.Option("--ctx", "-c", help="Longest sequence, prompt and output together.")
]
KvTypeOption = Annotated[str | None, typer.Option("--kv-type", help="KV cache: f16 or f32.")]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", "-n", help="Longest answer; default: the context.")
]
TemperatureOption = Annotated[float, typer.Option("--temperature", help="0 is greedy.")]
TopKOption = Annotated[int, typer.Option("--top-k", help="0 is off.")]
TopPOption = Annotated[float, typer.Option("--top-p", help="1 is off.")]
MinPOption = Annotated[float, typer.Option("--min-p", help="0 is off.")]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="The same seed gives the same text.")
]
StopOption = Annotated[list[str] | None, typer.Option("--stop", help="Stop at this text.")]


def settings_of(
    config: Path | None, *, engine: dict[str, Any] | None = None, **sections: Any
) -> Settings:
    """Settings of a command; None values leave what the file and the environment say."""
    return load_settings({"engine": engine or {}, **sections}, config_file=config)


def model_path(name: str | None, settings: Settings) -> Path:
    """The file of the model that the command line, else the settings, name."""
    return resolve_model(name if name is not None else settings.model, settings.aliases)


def engine_config(path: Path, settings: Settings) -> EngineConfig:
    """The engine's settings for this model file."""
    from dataclasses import replace

    return replace(settings.engine, model_path=str(path))


def sampling(
    *,
    max_tokens: int | None,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int | None,
    stop: list[str] | None = None,
) -> SamplingParams:
    """Sampling options as parameters; raises the errors of SamplingParams."""
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        stop=tuple(stop or ()),
    )
