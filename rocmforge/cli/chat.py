"""`rocmforge chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from rocmforge.cli import options as o
from rocmforge.cli.terminal import Interrupt, ctrl_c_stops, write_stream
from rocmforge.errors import RocmForgeError
from rocmforge.request import SamplingParams

if TYPE_CHECKING:
    from rocmforge.api import Model

HELP = """\
/reset          forget the conversation
/system TEXT    begin anew with this system message; without TEXT, with none
/exit           leave (so does Ctrl-D); Ctrl-C stops an answer"""


def chat_command(
    model: o.ModelArgument = None,
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
    """Talk to a model; every line is a message. Lines can also come from a pipe."""
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        stop=tuple(stop or ()),
    )
    with o.open_model(
        model,
        config,
        device=device,
        isa=isa,
        threads=threads,
        ctx=ctx,
        kv_type=kv_type,
        max_batch_size=1,
    ) as loaded:
        conversation = Conversation(loaded, params, system)
        with ctrl_c_stops() as interrupt:
            conversation.run(interrupt)


class Conversation:
    """The messages so far, and the loop that adds to them."""

    def __init__(self, model: Model, params: SamplingParams, system: str | None) -> None:
        self._model = model
        self._params = params
        self._system = system
        self._messages: list[object] = []
        self._is_interactive = sys.stdin.isatty()

    def run(self, interrupt: Interrupt) -> None:
        """Until Ctrl-D, /exit or the end of the input.

        Raises the errors of Model.stream_chat when the input is a pipe; a person is told, and goes
        on.
        """
        if self._is_interactive:
            # Arrow keys and history in input().
            import readline  # noqa: F401

            typer.echo(f"{self._model.path.name}; /help lists the commands.", err=True)
        self._reset()
        # A model that cannot chat is refused before the first line is typed.
        self._model.chat_prompt(o.messages(self._system, "hello"))
        while (line := self._read_line(interrupt)) is not None and line != "/exit":
            if line.startswith("/"):
                self._obey(line)
            elif line:
                self._answer(line, interrupt)

    def _read_line(self, interrupt: Interrupt) -> str | None:
        """The next line without blanks around it; None at the end."""
        while True:
            try:
                interrupt.raises = True
                line = input("> " if self._is_interactive else "").strip()
                interrupt.raises = interrupt.is_set = False
                return line
            except KeyboardInterrupt:
                typer.echo("\nCtrl-D leaves.", err=True)
            except EOFError:
                if self._is_interactive:
                    typer.echo()
                return None

    def _obey(self, line: str) -> None:
        name, _, text = line.partition(" ")
        if name == "/reset":
            self._reset()
        elif name == "/system":
            self._system = text.strip() or None
            self._reset()
        elif name == "/help":
            typer.echo(HELP, err=True)
        else:
            typer.echo(f"there is no command {name}; /help lists them", err=True)

    def _reset(self) -> None:
        self._messages = [] if self._system is None else o.messages(self._system)

    def _answer(self, line: str, interrupt: Interrupt) -> None:
        question = {"role": "user", "content": line}
        messages = [*self._messages, question]
        try:
            text, is_cut = write_stream(
                lambda: self._model.stream_chat(messages, self._params), interrupt
            )
        except RocmForgeError as error:
            if not self._is_interactive:
                raise
            typer.echo(f"error: {error.message} (/reset begins anew)", err=True)
            return
        # What was said before Ctrl-C is part of the conversation.
        if text or not is_cut:
            self._messages = [*messages, {"role": "assistant", "content": text}]
