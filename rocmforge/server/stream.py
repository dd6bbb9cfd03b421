"""Server-sent events, and requests that end when their client leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rocmforge.errors import InternalError, RocmForgeError
from rocmforge.observe.log import get_logger

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


async def with_pings(
    chunks: AsyncIterator[bytes], interval_s: float
) -> AsyncGenerator[bytes, None]:
    """The chunks, and a comment whenever none has come for a while, so that no proxy gives up."""
    pending: asyncio.Future[bytes] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(_next(chunks))
            done, _ = await asyncio.wait({pending}, timeout=interval_s)
            if not done:
                yield PING
                continue
            finished, pending = pending, None
            try:
                chunk = finished.result()
            except StopAsyncIteration:
                return
            yield chunk
    finally:
        if pending is not None:
            await _cancel(pending)


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    return await chunks.__anext__()


class EventStream(Response):
    """A response of events.

    chunks: encoded events. failure: what a stream that fails ends with. on_end: always awaited, the
    client's leaving included.

    The head is sent with the first chunk or ping. Called, it raises a RocmForgeError that comes
    before: then the answer can still be a proper status.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        ping_interval_s: float,
        failure: Callable[[RocmForgeError], bytes],
        on_end: Callable[[], Awaitable[None]],
    ) -> None:
        # A proxy that buffers would turn a stream into one long wait.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(None, 200, headers)
        del self.headers["content-length"]
        self._chunks = with_pings(chunks, ping_interval_s)
        self._failure = failure
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the chunks end or the client leaves."""
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            await _cancel(sending)
            await _cancel(leaving)
            await self._on_end()

    async def _send_all(self, send: Send) -> None:
        # Closed here: cancelled in `send`, it would keep its reader of `chunks` running.
        async with contextlib.aclosing(self._chunks) as chunks:
            first = await anext(chunks, b"")
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _send_body(send, first)
            await self._send_rest(chunks, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_rest(self, chunks: AsyncIterator[bytes], send: Send) -> None:
        try:
            async for chunk in chunks:
                await _send_body(send, chunk)
        except RocmForgeError as error:
            await _send_body(send, self._failure(error))
        except Exception as error:  # noqa: BLE001  # the boundary: a stream never ends in silence
            _log.exception("stream_failed", error=repr(error))
            await _send_body(send, self._failure(InternalError("the stream failed; see the log")))


async def _send_body(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})
