"""Reading prompts and writing answers, on terminals and in pipes."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rocmforge.errors import InvalidRequest, IoError

if TYPE_CHECKING:
    from rocmforge.api import GenerationStream

STDIN = "-"
# All but line breaks and tabs: what a model writes must not steer the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def write(text: str) -> None:
    """Print a piece of an answer at once; on a terminal, control characters become U+FFFD."""
    sys.stdout.write(_CONTROL.sub("\ufffd", text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def read_prompt(prompt: str) -> str:
    """The prompt itself, or all of stdin when it is `-`."""
    return read_text(STDIN) if prompt == STDIN else prompt


def read_text(name: str) -> str:
    """A file's text, or stdin's for `-`, without one line break at its end.

    Raises IoError when it cannot be read, InvalidRequest when it is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise IoError(f"cannot read the prompt from {name}: {error.strerror}") from error
    try:
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the prompt from {name} is not UTF-8: {error}") from None


class Interrupt:
    """What Ctrl-C does: it sets a flag, once, or is KeyboardInterrupt while `raises`."""

    def __init__(self) -> None:
        self.is_set = False
        self.raises = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """The signal handler. Raises KeyboardInterrupt when nobody has looked at the flag since
        the last Ctrl-C.
        """
        if self.raises or self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


@contextmanager
def ctrl_c_stops() -> Iterator[Interrupt]:
    """Inside, the first Ctrl-C only sets a flag, to be looked at between two steps of the
    engine.
    """
    interrupt = Interrupt()
    previous = signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)


def write_stream(start: Callable[[], GenerationStream], interrupt: Interrupt) -> tuple[str, bool]:
    """Start an answer and print it while it grows, with a line break at its end; its text, and
    whether Ctrl-C cut it.
    """
    parts: list[str] = []
    with start() as stream:
        while not interrupt.is_set:
            has_ended = stream.has_ended
            delta = stream.poll()
            if delta is not None:
                parts.append(delta.text)
                write(delta.text)
            elif has_ended:
                break
    write("\n")
    return "".join(parts), interrupt.is_set
