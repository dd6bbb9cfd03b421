"""What every request passes, whatever its route: its id, its path, its key, its log line."""

from __future__ import annotations

import re
import secrets
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rocmforge.clock import monotonic_s
from rocmforge.errors import InvalidApiKey, RequestTooLarge, RocmForgeError
from rocmforge.observe.log import get_logger, http_log_context
from rocmforge.server.admission import drain_s
from rocmforge.server.responses import CLIENT_LEFT_STATUS, error_response
from rocmforge.server.state import ServerState

# Probes and scrapers have no keys, and what they read names no request.
OPEN_PATHS: Final = frozenset({"/health", "/ready", "/metrics"})
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_log = get_logger(__name__)


def clean_path(path: str) -> str:
    """`//` and trailing slashes are seen in the wild: they mean the path without."""
    return re.sub("/{2,}", "/", path).rstrip("/") or "/"


class Gateway:
    """The outermost ASGI app: no error leaves it but as a response."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (or pass the lifespan on)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = clean_path(scope["path"])
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SAFE_ID.fullmatch(given) else f"req-{secrets.token_hex(8)}"
        with http_log_context(request_id):
            await self._serve(scope, receive, _Answer(send, request_id), headers)

    async def _serve(
        self, scope: Scope, receive: Receive, answer: _Answer, headers: Headers
    ) -> None:
        start_s = monotonic_s()
        try:
            self._check(scope["path"], headers)
            await self._app(scope, receive, answer.send)
        except RocmForgeError as error:
            await self._refuse(error, scope, receive, answer)
        except Exception as error:  # noqa: BLE001  # the boundary: answered by the app, logged here
            _log.exception("request_crashed", error=repr(error))
        finally:
            # The route's pattern, so that ids in paths do not become labels.
            route = getattr(scope.get("route"), "path", "unknown")
            self._state.metrics.response(route, answer.status or CLIENT_LEFT_STATUS)
            _log.debug(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=answer.status,
                duration_ms=round((monotonic_s() - start_s) * 1000, 2),
            )

    def _check(self, path: str, headers: Headers) -> None:
        """Raises InvalidApiKey, or RequestTooLarge by the announced length."""
        if path not in OPEN_PATHS and not self._state.keys.admits(headers):
            raise InvalidApiKey("a valid API key is needed: send it as 'Authorization: Bearer KEY'")
        length = headers.get("content-length", "0")
        limit = self._state.config.max_body_bytes
        if length.isdigit() and int(length) > limit:
            raise RequestTooLarge(f"the body is longer than {limit} bytes")

    async def _refuse(
        self, error: RocmForgeError, scope: Scope, receive: Receive, answer: _Answer
    ) -> None:
        response = error_response(error, scope["path"], self._state.config, drain_s(self._state))
        await response(scope, receive, answer.send)


class _Answer:
    """The response on its way out: adds the request's id, remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self._request_id
        await self._send(message)
