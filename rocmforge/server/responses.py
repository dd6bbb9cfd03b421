"""Errors as HTTP: the only place that turns a RocmForgeError into a status, headers and a body."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from starlette.responses import Response

from rocmforge.config import ServerConfig
from rocmforge.errors import (
    BackendError,
    ContextLengthExceeded,
    DeadlineExceeded,
    ErrorCategory,
    GenerationFailed,
    QueueCapacityExceeded,
    RequestNotFound,
    RocmForgeError,
    UploadTimedOut,
)

MAX_RETRY_AFTER_S: Final = 120
# What nginx calls it; nobody reads it but metrics.
CLIENT_LEFT_STATUS: Final = 499
_STATUS: Final = {
    ErrorCategory.User: 400,
    ErrorCategory.Model: 400,
    ErrorCategory.Recoverable: 503,
    ErrorCategory.Backend: 503,
    ErrorCategory.Internal: 500,
}
# A class whose category says less than HTTP can.
_PRECISE: Final[dict[type[RocmForgeError], int]] = {RequestNotFound: 404}
_PASSING: Final = (ErrorCategory.Recoverable, ErrorCategory.Backend)
_TYPES: Final = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}


def status_of(error: RocmForgeError) -> int:
    """The HTTP status of an error."""
    precise = error.http_status or _PRECISE.get(type(error))
    return precise or _STATUS[error.category()]


def code_of(error: RocmForgeError) -> str:
    """The OpenAI `code`: the class's own, but for a full queue and a lost device."""
    if isinstance(error, QueueCapacityExceeded):
        return "server_overloaded"
    if isinstance(error, BackendError):
        return "engine_recovering"
    return error.code


def is_passing(error: RocmForgeError) -> bool:
    """Whether the same request may succeed later. It asks the category: that one device operation
    is not worth another try says nothing about the next engine.
    """
    return error.category() in _PASSING


def headers_of(
    error: RocmForgeError, config: ServerConfig, drain_s: float | None = None
) -> dict[str, str]:
    """Retry-After for what passes by itself; no automatic retry for a request that keeps killing
    engines or that has missed its own deadline.

    drain_s: seconds until the queue has room again, where that is known.
    """
    headers = {}
    if isinstance(error, UploadTimedOut):
        headers["Connection"] = "close"  # its rest would be read as the next request
    if isinstance(error, GenerationFailed | DeadlineExceeded):
        headers["x-should-retry"] = "false"
    if not is_passing(error):
        return headers
    after_s = float(config.retry_after_s)
    if isinstance(error, QueueCapacityExceeded) and drain_s is not None:
        after_s = min(after_s, drain_s)
    headers["Retry-After"] = str(max(1, min(MAX_RETRY_AFTER_S, math.ceil(after_s))))
    return headers


def openai_body(error: RocmForgeError) -> dict[str, Any]:
    """The body of /v1 errors."""
    status = status_of(error)
    body: dict[str, Any] = {
        "message": error.message,
        "type": _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
        "param": error.param,
        "code": code_of(error),
        "category": str(error.category()),
        "recoverable": is_passing(error),
    }
    if isinstance(error, ContextLengthExceeded):
        body |= {"n_prompt_tokens": error.n_prompt_tokens, "n_ctx": error.n_ctx}
    return {"error": body}


def native_body(error: RocmForgeError) -> dict[str, Any]:
    """The body of all other errors."""
    return {
        "error": error.message,
        "category": str(error.category()),
        "recoverable": is_passing(error),
        "status": "error",
    }


def is_openai_path(path: str) -> bool:
    """Whether a path answers in OpenAI's shape."""
    return path == "/v1" or path.startswith("/v1/")


def error_response(
    error: RocmForgeError, path: str, config: ServerConfig, drain_s: float | None = None
) -> Response:
    """The whole answer."""
    body = openai_body(error) if is_openai_path(path) else native_body(error)
    return json_response(body, status_of(error), headers_of(error, config, drain_s))


def json_response(
    body: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
