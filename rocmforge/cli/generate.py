"""`rocmforge generate`: continue texts, without chat template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from rocmforge.cli import options as o
from rocmforge.cli.run import INTERRUPTED
from rocmforge.cli.terminal import ctrl_c_stops, read_prompt, read_text, write, write_stream
from rocmforge.errors import InvalidConfiguration, InvalidRequest
from rocmforge.request import SamplingParams

if TYPE_CHECKING:
    from rocmforge.api import GenerationResult


def generate_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] PROMPT",
            help="One word is the prompt, for the default model; `-` reads it from stdin. "
            "With --prompt or --file: [MODEL].",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="A prompt (repeatable).")
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", help="A file with a prompt (repeatable); `-` is stdin."),
    ] = None,
    max_tokens: o.MaxTokensOption = None,
    temperature: o.TemperatureOption = 1.0,
    top_k: o.TopKOption = 0,
    top_p: o.TopPOption = 1.0,
    min_p: o.MinPOption = 0.0,
    seed: o.SeedOption = None,
    stop: o.StopOption = None,
    repetition_penalty: Annotated[float, typer.Option(help="1 is off.")] = 1.0,
    presence_penalty: Annotated[float, typer.Option(help="0 is off.")] = 0.0,
    frequency_penalty: Annotated[float, typer.Option(help="0 is off.")] = 0.0,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=BIAS", help="Add to the logit of a token (repeatable)."),
    ] = None,
    choices: Annotated[int, typer.Option(help="Answers for each prompt.")] = 1,
    logprobs: Annotated[
        int | None, typer.Option(help="With --json: logprobs, and those of the likeliest tokens.")
    ] = None,
    stop_token_id: Annotated[
        list[int] | None, typer.Option(help="Stop at this token (repeatable).")
    ] = None,
    min_tokens: Annotated[int, typer.Option(help="No end of text before.")] = 0,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on behind ends.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each prompt.")
    ] = False,
    device: o.DeviceOption = None,
    isa: o.IsaOption = None,
    threads: o.ThreadsOption = None,
    ctx: o.ContextOption = None,
    kv_type: o.KvTypeOption = None,
    config: o.ConfigOption = None,
) -> None:
    """Continue one or more texts; several run as one batch."""
    name, prompts = _prompts(words or [], prompt or [], file or [])
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        stop=tuple(stop or ()),
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=_logit_bias(logit_bias or []),
        n=choices,
        logprobs=logprobs,
        stop_token_ids=tuple(stop_token_id or ()),
        min_tokens=min_tokens,
        ignore_eos=ignore_eos,
    )
    with o.open_model(
        name, config, device=device, isa=isa, threads=threads, ctx=ctx, kv_type=kv_type
    ) as model:
        if len(prompts) == choices == 1 and not as_json:
            with ctrl_c_stops() as interrupt:
                _, is_cut = write_stream(lambda: model.stream(prompts[0], params), interrupt)
            if is_cut:
                raise typer.Exit(INTERRUPTED)
            return
        for number, result in enumerate(model.generate_batch(prompts, params)):
            _print(number, result, as_json)


def _prompts(
    words: list[str], prompts: list[str], files: list[str]
) -> tuple[str | None, list[str]]:
    """(model, prompts) as given. Raises InvalidConfiguration for too many words, or too few."""
    if not prompts and not files:
        name, prompt = o.split_model(words)
        return name, [read_prompt(prompt)]
    if len(words) > 1:
        raise InvalidConfiguration("with --prompt or --file, only [MODEL] may stand beside them")
    return words[0] if words else None, [*prompts, *(read_text(name) for name in files)]


def _logit_bias(pairs: list[str]) -> dict[int, float]:
    """{token id: bias} of texts `ID=BIAS`."""
    try:
        return {int(key): float(value) for key, value in (pair.split("=") for pair in pairs)}
    except ValueError:
        raise InvalidRequest(
            f"logit biases are written ID=BIAS, such as 42=-100; got {', '.join(pairs)}",
            param="logit_bias",
        ) from None


def _print(number: int, result: GenerationResult, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_facts(number, result), ensure_ascii=False))
        return
    for index, choice in enumerate(result.choices):
        which = f", choice {index + 1}" if len(result.choices) > 1 else ""
        write(f"==> prompt {number + 1}{which} <==\n{choice.text}\n")


def _facts(number: int, result: GenerationResult) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(result)
    return {"prompt": number, **facts}
