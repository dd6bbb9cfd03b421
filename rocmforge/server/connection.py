"""One connection: what a client may cost before its request has reached the application.

uvicorn limits neither the time nor the size of a request's head, and a client that stops reading
keeps its connection for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rocmforge.config import ServerConfig
from rocmforge.errors import (
    HeadersTooLarge,
    InvalidRequest,
    QueueCapacityExceeded,
    RocmForgeError,
    UploadTimedOut,
)
from rocmforge.observe.log import get_logger
from rocmforge.server.responses import error_response, headers_of, native_body, status_of
from rocmforge.server.stream import ABORT

_log = get_logger(__name__)


class ConnectionSettings(uvicorn.Config):
    """uvicorn's settings and what GuardedProtocol needs. on_slow: told `headers` or `reader`."""

    def __init__(
        self, app: Any, limits: ServerConfig, on_slow: Callable[[str], None], **settings: Any
    ) -> None:
        super().__init__(app, http=GuardedProtocol, **settings)
        self.limits = limits
        self.on_slow = on_slow


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on a request's head, on unread answers, and on connections.

    Overridden, as uvicorn 0.54 has them: connection_made and connection_lost,
    data_received, on_message_begin, on_headers_complete, on_message_complete, on_response_complete.
    """

    config: ConnectionSettings

    def __init__(self, config: ConnectionSettings, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._is_in_head = self._is_in_body = False
        self._n_head_bytes = 0
        self._n_heads = 0
        self._app_of_config = self.app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects; one too many is told so."""
        super().connection_made(transport)
        most = self.config.limits.connections.max_connections
        if len(self.connections) > most:
            self._refuse(QueueCapacityExceeded(f"{most} connections are open; try again later"))
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._forget_timer()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came: of a head, they are counted before the parser keeps them."""
        if self._is_idle() and self._head_timer is None:
            self._expect_head()
        was_in_body, n_heads = self._is_in_body, self._n_heads
        super().data_received(data)
        # What came before a head's first byte in the same piece belongs to another request.
        is_other = was_in_body or n_heads != self._n_heads
        if self.transport.is_closing() or not self._is_in_head or is_other:
            return
        self._n_head_bytes += len(data)
        if self._n_head_bytes <= self.config.limits.connections.max_header_bytes:
            return
        if self._is_idle():
            self._refuse(self._too_large())
        else:
            self.transport.abort()  # a refusal would land in the midst of the running answer

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head, self._n_head_bytes = True, 0
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # it has keys of others too
        scope[ABORT] = self.transport.abort

    def on_headers_complete(self) -> None:
        """A request's head is there; one that came in few pieces may still be too large."""
        self._forget_timer()
        self._is_in_head, self._is_in_body = False, True
        self._n_heads += 1
        n_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        is_too_large = n_bytes > self.config.limits.connections.max_header_bytes
        self.app = self._answer_too_large if is_too_large else self._app_of_config
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request's body is there."""
        self._is_in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is with the transport; a client that never takes it must not keep it."""
        self._watch_unread()
        super().on_response_complete()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._n_head_bytes = 0
        after_s = self.config.limits.connections.header_timeout_s
        self._head_timer = self.loop.call_later(after_s, self._head_is_late)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if not self._is_in_head:
            # Nobody uses it, as browsers open them, or nobody waits for its body.
            self.transport.close()
            return
        self.config.on_slow("headers")
        self._refuse(UploadTimedOut("the headers did not arrive in time"))

    def _watch_unread(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        self._unread_timer = None
        if n_bytes := self.transport.get_write_buffer_size():
            after_s = self.config.limits.connections.write_timeout_s
            self._unread_timer = self.loop.call_later(after_s, self._cut_off_if_unread, n_bytes)

    def _cut_off_if_unread(self, n_before: int) -> None:
        self._unread_timer = None
        n_bytes = self.transport.get_write_buffer_size()
        # Only at rest: a later answer that is being written has a timer of its own.
        if not n_bytes or not self._is_idle():
            return
        if n_bytes < n_before:
            self._watch_unread()
            return
        self.config.on_slow("reader")
        self.transport.abort()

    def _too_large(self) -> InvalidRequest:
        limit = self.config.limits.connections.max_header_bytes
        return HeadersTooLarge(f"the request's headers are larger than {limit} bytes")

    async def _answer_too_large(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = error_response(self._too_large(), scope["path"], self.config.limits)
        response.headers["connection"] = "close"
        await response(scope, receive, send)

    def _refuse(self, error: RocmForgeError) -> None:
        """Answer in place of the application, and close."""
        self._forget_timer()
        body = msgspec.json.encode(native_body(error))
        headers = headers_of(error, self.config.limits) | {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {status_of(error)} \r\n{head}\r\n".encode() + body)
        self.transport.close()
        _log.debug("connection_refused", reason=type(error).__name__)
