"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rocmforge.config import EngineConfig, Settings, load_settings
from rocmforge.errors import InvalidConfiguration
from rocmforge.model_source import resolve_model

if TYPE_CHECKING:
    from rocmforge.api import Model

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
    str | None,
    typer.Option("--isa", help="Native kernels: auto, amx, avx512, avxvnni, avx2, neon or scalar."),
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


# What people want of a conversation: some variety, and none of the least likely words.
CHAT_TEMPERATURE = 0.7
CHAT_MIN_P = 0.05
SystemOption = Annotated[str | None, typer.Option("--system", help="A system message.")]


def settings_of(
    config: Path | None,
    *,
    engine: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
    **sections: Any,
) -> Settings:
    """Settings of a command; None values leave what the file and the environment say.
    `defaults`: the command's own, weaker than both.
    """
    return load_settings(
        {"engine": engine or {}, **sections}, config_file=config, defaults=defaults
    )


def model_path(name: str | None, settings: Settings) -> Path:
    """The file of the model that the command line, else the settings, name."""
    return resolve_model(name if name is not None else settings.model, settings.aliases)


def engine_config(path: Path, settings: Settings) -> EngineConfig:
    """The engine's settings for this model file."""
    from dataclasses import replace

    return replace(settings.engine, model_path=str(path))


def open_model(
    name: str | None,
    config: Path | None,
    *,
    device: str | None,
    isa: str | None,
    threads: int | None,
    ctx: int | None,
    kv_type: str | None,
    max_batch_size: int | None = None,
) -> Model:
    """The model of a command that runs it here; warnings and errors are logged, on stderr.

    `max_batch_size`: what the command needs, unless the settings say more or less.
    """
    from rocmforge.api import Model
    from rocmforge.observe.log import configure_logging

    settings = settings_of(
        config,
        engine={
            "device": device,
            "isa": isa,
            "n_threads": threads,
            "max_sequence_length": ctx,
            "cache": {"kv_type": kv_type},
        },
        defaults={
            "engine": {"scheduler": {"max_batch_size": max_batch_size}},
            "log": {"level": "warning"},
        },
    )
    configure_logging(settings.log)
    return Model(model_path(name, settings), settings.engine)


def split_model(words: list[str]) -> tuple[str | None, str]:
    """[MODEL] PROMPT as given: one word is the prompt, for the default model.

    Raises InvalidConfiguration for any other number of words than one or two.
    """
    match words:
        case [prompt]:
            return None, prompt
        case [model, prompt]:
            return model, prompt
    raise InvalidConfiguration(
        f"give [MODEL] PROMPT, not {len(words)} words; a prompt of several words goes in quotes"
    )


def messages(system: str | None, *user: str) -> list[object]:
    """Chat messages: a system message, if any, and what the user says."""
    head = [] if system is None else [("system", system)]
    pairs = [*head, *(("user", text) for text in user)]
    return [{"role": role, "content": content} for role, content in pairs]
