"""Server-sent events, and requests that end when their client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rocmforge.clock import monotonic_s
from rocmforge.errors import InternalError, RocmForgeError
from rocmforge.observe.log import get_logger
from rocmforge.server.state import ServerState

# In a request's scope: cuts its connection off.
ABORT: Final = "rocmforge.abort"
PING: Final = b": ping\n\n"
DONE: Final = b"data: [DONE]\n\n"
Result = TypeVar("Result")
_log = get_logger(__name__)


class ClientLeft(Exception):
    """The client closed its connection before the answer was complete."""


def event(body: object, name: str | None = None) -> bytes:
    """One event; JSON has no line breaks, so one data line holds it."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + msgspec.json.encode(body) + b"\n\n"


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_client_leaves(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`; it is cancelled when the client leaves. Raises ClientLeft then."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeft
    finally:
        await _cancel(working)
        await _cancel(leaving)


async def _cancel(task: asyncio.Future[Result]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, RocmForgeError, OSError):
        await task


async def _cut_off(scope: Scope) -> None:
    """End the connection without waiting for what is still to be sent."""
    abort = scope.get(ABORT)
    if abort is not None:
        abort()
        await asyncio.sleep(0)  # the server learns of it in the loop's next turn


class EventStream(Response):
    """A response of events.

    chunks: encoded events, one or more at a time. failure: what a stream that fails ends with.
    on_end: always awaited, the client's leaving included. Whenever nothing was sent for
    ping_interval_s, a comment is, so that no proxy gives up. write_timeout_s: a client that takes
    nothing for so long has its connection cut off; on_stalled is told.

    The head is sent with the first chunk or ping. Called, it raises a RocmForgeError that comes
    before: then the answer can still be a proper status.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        ping_interval_s: float,
        failure: Callable[[RocmForgeError], bytes],
        on_end: Callable[[], Awaitable[None]],
        write_timeout_s: float | None = None,
        on_stalled: Callable[[], None] = lambda: None,
    ) -> None:
        # A proxy that buffers would turn a stream into one long wait.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(None, 200, headers)
        del self.headers["content-length"]
        self._chunks = chunks
        self._ping_interval_s = ping_interval_s
        self._failure = failure
        self._on_end = on_end
        self._write_timeout_s = write_timeout_s
        self._on_stalled = on_stalled
        self._write_began_s: float | None = None
        self._has_begun = False
        self._wrote_s = 0.0
        # A ping and a chunk must not overtake each other on their way through `send`.
        self._writing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the chunks end or the client leaves."""
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            if not await self._first_of(sending, leaving):
                self._on_stalled()
                await _cut_off(scope)
            elif sending.done():
                sending.result()
        finally:
            await _cancel(sending)
            await _cancel(leaving)
            await self._on_end()

    async def _first_of(self, *tasks: asyncio.Future[None]) -> bool:
        """Wait for one of the tasks; False when the client has stopped reading.

        Looked at from time to time: a timer for each write would cost as much as the write.
        """
        limit_s = math.inf if self._write_timeout_s is None else self._write_timeout_s
        look_s = None if self._write_timeout_s is None else limit_s / 4
        while True:
            done, _ = await asyncio.wait(tasks, timeout=look_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return True
            began_s = self._write_began_s
            if began_s is not None and monotonic_s() - began_s >= limit_s:
                return False

    async def _send_all(self, send: Send) -> None:
        # A timer beside the chunks: a task for each chunk would cost more than the chunk.
        pinging = asyncio.ensure_future(self._ping(send))
        try:
            # Closed here: cancelled in `send`, it would keep its reader of `chunks` running.
            async with contextlib.aclosing(self._chunks) as chunks:
                await self._send_chunks(chunks, send)
        finally:
            await _cancel(pinging)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_chunks(self, chunks: AsyncIterator[bytes], send: Send) -> None:
        try:
            async for chunk in chunks:
                await self._write(chunk, send)
            if not self._has_begun:
                await self._write(b"", send)
        except RocmForgeError as error:
            if not self._has_begun:
                raise
            await self._write(self._failure(error), send)
        except Exception as error:  # the boundary: a stream never ends in silence
            if not self._has_begun:
                raise
            _log.exception("stream_failed", error=repr(error))
            failure = InternalError("the stream failed; see the log")
            await self._write(self._failure(failure), send)

    async def _write(self, chunk: bytes, send: Send) -> None:
        async with self._writing:
            self._write_began_s = monotonic_s()
            if not self._has_begun:
                self._has_begun = True
                head = {"status": 200, "headers": self.raw_headers}
                await send({"type": "http.response.start"} | head)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            self._write_began_s = None
        self._wrote_s = monotonic_s()

    async def _ping(self, send: Send) -> None:
        self._wrote_s = monotonic_s()
        while True:
            rest_s = self._wrote_s + self._ping_interval_s - monotonic_s()
            if rest_s > 0:
                await asyncio.sleep(rest_s)
            else:
                await self._write(PING, send)


def event_stream(
    state: ServerState,
    chunks: AsyncGenerator[bytes, None],
    *,
    failure: Callable[[RocmForgeError], bytes],
    on_end: Callable[[], Awaitable[None]],
) -> EventStream:
    """A stream with the server's own settings."""
    return EventStream(
        chunks,
        ping_interval_s=state.config.ping_interval_s,
        write_timeout_s=state.config.connections.write_timeout_s,
        on_stalled=lambda: state.metrics.slow_client("reader"),
        failure=failure,
        on_end=on_end,
    )
