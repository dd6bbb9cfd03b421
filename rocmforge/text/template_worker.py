"""Renders chat templates in a process of its own: `python -m rocmforge.text.template_worker`.

Started by template_process.py. A template may loop for ever or ask for any amount of memory; here
that harms nobody: memory is limited, the parent kills the process at its deadline, and the process
ends with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import BinaryIO

import msgspec

from rocmforge.errors import RocmForgeError
from rocmforge.text.chat_template import ChatTemplate
from rocmforge.text.template_protocol import (
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    FromWorker,
    Refused,
    Render,
    Rendered,
    Setup,
    ToWorker,
    frame,
)

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer requests from standard input until it is closed."""
    parent_pid = os.getppid()
    # What a template prints by accident must not mix with the frames.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    sys.stdout = sys.stderr
    source = sys.stdin.buffer
    setup = _read(source)
    if not isinstance(setup, Setup):
        return
    _limit(setup.memory_bytes)
    _end_with_parent(parent_pid)
    _write(output, frame(Rendered("")))
    templates: dict[str, ChatTemplate] = {}
    while True:
        request = _read(source)
        if not isinstance(request, Render):
            return
        # The parent kills us at its deadline; this is for when the parent is gone.
        signal.setitimer(signal.ITIMER_REAL, 2 * setup.timeout_s)
        answer = frame(_answer(request, setup, templates))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(output, answer)


def _answer(request: Render, setup: Setup, templates: dict[str, ChatTemplate]) -> FromWorker:
    try:
        template = templates.get(request.name)
        if template is None:
            template = ChatTemplate(
                setup.templates[request.name],
                bos_token=setup.bos_token,
                eos_token=setup.eos_token,
            )
            templates[request.name] = template
        text = template.render(
            request.messages,
            tools=request.tools,
            add_generation_prompt=request.add_generation_prompt,
            **request.variables,
        )
    except RocmForgeError as error:
        return Refused(type(error).__name__, error.message, error.param)
    # Half a surrogate pair, which a template can make by slicing, has no UTF-8 form.
    return Rendered(text.encode("utf-8", "replace").decode())


def _read(source: BinaryIO) -> ToWorker | None:
    """The next message; None at the end of input or on a broken frame."""
    head = source.read(LENGTH_BYTES)
    length = int.from_bytes(head, "big")
    if len(head) < LENGTH_BYTES or length > MAX_FRAME_BYTES:
        return None
    body = source.read(length)
    if len(body) < length:
        return None
    message: ToWorker = msgspec.msgpack.decode(body, type=ToWorker)
    return message


def _write(output: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[output.write(view) :]


def _limit(memory_bytes: int) -> None:
    # Not every system has every limit; the deadline holds in any case.
    for kind, value in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))


def _end_with_parent(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit()


if __name__ == "__main__":
    main()
