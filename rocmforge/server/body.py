"""From the bytes of a request to a JSON object, within limits."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from rocmforge.errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType, UploadTimedOut
from rocmforge.server.state import state_of
from rocmforge.server.stream import ClientLeft


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in the body.

    Raises RequestTooLarge, before the rest is read; UnsupportedMediaType when a content type is
    given and is not JSON; InvalidRequest for what is no JSON object; UploadTimedOut for an upload
    that takes too long; ClientLeft when it is cut off.
    """
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(f"the body must be application/json, not {kind[:80]}")
    content = await _upload(request)
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    return body


async def _upload(request: Request) -> bytes:
    state = state_of(request)
    limit, within_s = state.config.max_body_bytes, state.config.connections.body_timeout_s
    chunks, n_bytes = [], 0
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                n_bytes += len(chunk)
                if n_bytes > limit:
                    raise RequestTooLarge(f"the body is longer than {limit} bytes")
                chunks.append(chunk)
    except ClientDisconnect:
        raise ClientLeft from None
    except TimeoutError:
        state.metrics.slow_client("body")
        raise UploadTimedOut(f"the body did not arrive within {within_s:g} s") from None
    return b"".join(chunks)
