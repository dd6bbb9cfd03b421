"""`rocmforge run`: one answer, streamed to the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from rocmforge.cli import options as o
from rocmforge.cli.terminal import ctrl_c_stops, read_prompt, write_stream
from rocmforge.request import SamplingParams

INTERRUPTED = 130


def run_command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] PROMPT",
            help="One word is the prompt, for the default model; `-` reads it from stdin.",
            show_default=False,
        ),
    ],
    system: o.SystemOption = None,
    max_tokens: o.MaxTokensOption = None,
    temperature: o.TemperatureOption = o.CHAT_TEMPERATURE,
    top_k: o.TopKOption = 0,
    top_p: o.TopPOption = 1.0,
    min_p: o.MinPOption = o.CHAT_MIN_P,
    seed: o.SeedOption = None,
    stop: o.StopOption = None,
    device: o.DeviceOption = None,
    isa: o.IsaOption = None,
    threads: o.ThreadsOption = None,
    ctx: o.ContextOption = None,
    kv_type: o.KvTypeOption = None,
    config: o.ConfigOption = None,
) -> None:
    """Answer one prompt: a chat turn, or a continuation when the model has no chat template."""
    name, prompt = o.split_model(words)
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        stop=tuple(stop or ()),
    )
    prompt = read_prompt(prompt)
    with (
        o.open_model(
            name,
            config,
            device=device,
            isa=isa,
            threads=threads,
            ctx=ctx,
            kv_type=kv_type,
            max_batch_size=1,
        ) as model,
        ctrl_c_stops() as interrupt,
    ):
        if system is not None or model.has_chat_template:
            messages = o.messages(system, prompt)
            _, is_cut = write_stream(lambda: model.stream_chat(messages, params), interrupt)
        else:
            _, is_cut = write_stream(lambda: model.stream(prompt, params), interrupt)
    if is_cut:
        raise typer.Exit(INTERRUPTED)
