"""The native routes: /generate, /generate/stream, /status/{id}, /cancel/{id}, /models."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from rocmforge.errors import RocmForgeError
from rocmforge.request import Request, RequestId
from rocmforge.server import admission
from rocmforge.server.body import read_object
from rocmforge.server.generation import ChoiceDelta, Generation
from rocmforge.server.openai import model_card
from rocmforge.server.responses import json_response, native_body
from rocmforge.server.routes import Routes
from rocmforge.server.schemas import GenerateBody, parse
from rocmforge.server.state import state_of
from rocmforge.server.stream import event, event_stream, unless_client_leaves
from rocmforge.server.unsupported import NATIVE, refuse_unsupported

routes = Routes()


@routes.post("/generate")
async def generate(request: HttpRequest) -> Response:
    """A text continued; with `stream` as events."""
    generation, is_stream = await _start(request)
    if is_stream:
        return _events(request, generation)
    try:
        return await unless_client_leaves(request, _whole(generation))
    finally:
        await generation.aclose()


@routes.post("/generate/stream")
async def generate_stream(request: HttpRequest) -> Response:
    """A text continued, token by token."""
    generation, _ = await _start(request)
    return _events(request, generation)


@routes.get("/status/{request_id}")
async def status(request: HttpRequest) -> Response:
    """A request that runs, or one of the last that ended."""
    record = state_of(request).registry.get(request.path_params["request_id"])
    return json_response(record.as_fields())


@routes.post("/cancel/{request_id}")
async def cancel(request: HttpRequest) -> Response:
    """Stop a request and free its cache; its client gets what was made and `cancelled`."""
    record = state_of(request).registry.get(request.path_params["request_id"])
    cancelled = record.handle is not None and not record.handle.is_done
    if record.handle is not None:
        record.handle.cancel()
    return json_response({"request_id": record.request_id, "cancelled": cancelled})


@routes.get("/models")
async def models(request: HttpRequest) -> Response:
    """The model that is served."""
    return json_response({"models": [model_card(state_of(request))]})


async def _start(request: HttpRequest) -> tuple[Generation, bool]:
    state = state_of(request)
    with admission.arriving(state):
        raw = await read_object(request)
        body = parse(GenerateBody, raw)
        refuse_unsupported(raw, NATIVE)
        params = body.params()
        state.model.check_name(body.model)
        ids = await admission.encode(state, body.prompt, parse_special=True, param="prompt")
        request_id = RequestId(f"gen-{secrets.token_hex(12)}")
        admission.check_params(state, params)
        eog_ids = tuple(sorted(state.model.tokenizer.eog_ids))
        wanted = Request(request_id=request_id, prompt_ids=ids, params=params, eog_ids=eog_ids)
        admission.check_room(state, [wanted])
    generation = Generation(state, wanted, route="/generate", continuation=True)
    return generation, bool(body.stream)


async def _whole(generation: Generation) -> Response:
    reason = None
    async for deltas in generation:
        for delta in deltas:
            reason = delta.finish_reason or reason
    return json_response(
        {
            "request_id": generation.record.request_id,
            "text": generation.record.text(),
            "tokens": generation.token_ids(0),
            "finished": True,
            "finish_reason": reason and str(reason),
        }
    )


def _events(request: HttpRequest, generation: Generation) -> Response:
    return event_stream(
        state_of(request),
        _chunks(generation),
        failure=_failure,
        on_end=generation.aclose,
    )


async def _chunks(generation: Generation) -> AsyncGenerator[bytes, None]:
    request_id = generation.record.request_id
    async for deltas in generation:
        if deltas:
            yield b"".join([event(_token(request_id, delta)) for delta in deltas])


def _token(request_id: str, delta: ChoiceDelta) -> dict[str, Any]:
    """A TokenStream event: primitive fields only. token is null when a cancel ended the text."""
    return {
        "request_id": request_id,
        "token": delta.token_id if delta.token_id >= 0 else None,
        "text": delta.text,
        "finished": delta.finish_reason is not None,
        "finish_reason": delta.finish_reason and str(delta.finish_reason),
    }


def _failure(error: RocmForgeError) -> bytes:
    return event(native_body(error), "error")
