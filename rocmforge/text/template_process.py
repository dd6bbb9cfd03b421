"""Renders chat templates in a helper process that can be killed.

A template is a program from a model file, and what it costs depends on the request as well. So it
runs beside the server: at the deadline the helper is killed and replaced, and only that one request
fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence

import msgspec

from rocmforge.errors import InternalError, InvalidRequest, error_from_name
from rocmforge.text.template_protocol import (
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    FromWorker,
    Refused,
    Render,
    Setup,
    frame,
)
from rocmforge.text.template_sources import template_name

DEFAULT_TIMEOUT_S = 5.0
START_TIMEOUT_S = 30.0
MEMORY_BYTES = 2**30
_CLOSE_TIMEOUT_S = 1.0


class _HelperDied(Exception):
    """The helper's pipe closed before it answered."""


class TemplateProcess:
    """The chat templates of one model, rendered elsewhere; one rendering at a time.

    templates: by name, as `read_templates` gives them; may be empty. timeout_s: for one rendering.
    The helper is started by `start`, or by the first `render`.
    """

    def __init__(
        self,
        templates: Mapping[str, str],
        *,
        bos_token: str = "",
        eos_token: str = "",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._templates = dict(templates)
        self._timeout_s = timeout_s
        self._setup = frame(Setup(self._templates, bos_token, eos_token, memory_bytes, timeout_s))
        self._lock = asyncio.Lock()
        self._process: Process | None = None
        self.n_restarts = 0

    async def start(self) -> None:
        """Start the helper, so that the first request does not wait for it. Does nothing without
        templates.
        """
        async with self._lock:
            if self._templates and self._process is None:
                await self._spawn()

    async def close(self) -> None:
        """End the helper."""
        async with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            with contextlib.suppress(TimeoutError):
                _close_input(process)
                await asyncio.wait_for(process.wait(), _CLOSE_TIMEOUT_S)
            await _reap(process)

    async def render(
        self,
        /,
        messages: Sequence[object],
        *,
        tools: Sequence[object] | None = None,
        add_generation_prompt: bool = True,
        **variables: object,
    ) -> str:
        """The prompt for these messages (see ChatTemplate.render).

        Raises InvalidRequest when the model has no template, the template refuses the messages, or
        it takes more time or memory than it may.
        """
        name = template_name(self._templates, has_tools=bool(tools))
        request = _framed(
            Render(
                name,
                list(messages),
                list(tools) if tools else None,
                add_generation_prompt,
                variables,
            )
        )
        async with self._lock:
            try:
                answer = await self._ask(request)
            except _HelperDied:
                # It may have died while idle; only twice in a row is it this request's doing.
                try:
                    answer = await self._ask(request)
                except _HelperDied:
                    raise InvalidRequest(
                        "the model's chat template used up the memory that it may have, or crashed",
                        param="messages",
                    ) from None
        if isinstance(answer, Refused):
            raise error_from_name(answer.name, answer.message, answer.param)
        return answer.text

    async def _ask(self, request: bytes) -> FromWorker:
        process = self._process or await self._spawn()
        answered = False
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await _exchange(process, request)
            answered = True
        except TimeoutError:
            raise InvalidRequest(
                f"the model's chat template did not finish within {self._timeout_s:g} s",
                param="messages",
            ) from None
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            raise _HelperDied from error
        finally:
            # Also when our caller was cancelled: a late answer must not meet the next request.
            if not answered:
                self._process = None
                self.n_restarts += 1
                await asyncio.shield(_reap(process))
        return answer

    async def _spawn(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rocmforge.text.template_worker",
            stdin=PIPE,
            stdout=PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Its own session: Ctrl-C is for the server, which then closes us.
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await _exchange(process, self._setup)
            self._process = process
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            raise InternalError(
                f"the helper process that renders chat templates did not start ({error!r})"
            ) from error
        finally:
            # Also when our caller was cancelled: the process must not stay behind.
            if self._process is not process:
                await asyncio.shield(_reap(process))
        return process


def _framed(request: Render) -> bytes:
    try:
        return frame(request)
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        raise InvalidRequest(
            f"the messages or tools cannot be passed to the chat template: {error}",
            param="messages",
        ) from None


async def _exchange(process: Process, data: bytes) -> FromWorker:
    """Write a request and read its answer. Raises EOFError or OSError when the helper is gone."""
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise EOFError
    stdin.write(data)
    await stdin.drain()
    length = int.from_bytes(await stdout.readexactly(LENGTH_BYTES), "big")
    if length > MAX_FRAME_BYTES:
        raise EOFError
    answer: FromWorker = msgspec.msgpack.decode(await stdout.readexactly(length), type=FromWorker)
    return answer


def _close_input(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()


async def _reap(process: Process) -> None:
    """Kill and wait: no zombie, no open pipe."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    _close_input(process)
    if process.stdout is not None:
        with contextlib.suppress(OSError):
            await process.stdout.read()
    await process.wait()
