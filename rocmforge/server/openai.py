"""/v1/chat/completions, /v1/completions, /v1/models: OpenAI's routes."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from rocmforge.clock import unix_s
from rocmforge.errors import InvalidRequest, RocmForgeError
from rocmforge.request import MAX_CHOICES, Request, RequestId, SamplingParams
from rocmforge.server import admission
from rocmforge.server.body import read_object
from rocmforge.server.chat_prompt import render_chat
from rocmforge.server.chunk_writer import ChunkWriter
from rocmforge.server.generation import Generation
from rocmforge.server.openai_format import AnswerFormat, ChatFormat, CompletionFormat
from rocmforge.server.responses import json_response, openai_body
from rocmforge.server.routes import Routes
from rocmforge.server.schemas import ChatBody, CompletionBody, parse
from rocmforge.server.several import Several
from rocmforge.server.state import ServerState, state_of
from rocmforge.server.stream import event, event_stream, unless_client_leaves
from rocmforge.server.unsupported import CHAT, COMPLETIONS, refuse_unsupported

routes = Routes()


@routes.post("/v1/chat/completions")
async def chat_completions(request: HttpRequest) -> Response:
    """One chat turn."""
    state = state_of(request)
    with admission.arriving(state):
        raw = await read_object(request)
        body = parse(ChatBody, raw)
        refuse_unsupported(raw, CHAT)
        params = body.params()
        state.model.check_name(body.model)
        ids = await _chat_prompt(state, body)
        response_id = f"chatcmpl-{secrets.token_hex(12)}"
        requests = [_request(state, response_id, ids, params)]
        admission.check_room(state, requests)
    shape = ChatFormat(response_id, state.model.name, int(unix_s()), state.model.tokenizer, params)
    return await _answer(request, body.stream, body.includes_usage, requests, shape)


@routes.post("/v1/completions")
async def completions(request: HttpRequest) -> Response:
    """Texts continued, without chat template."""
    state = state_of(request)
    with admission.arriving(state):
        raw = await read_object(request)
        body = parse(CompletionBody, raw)
        refuse_unsupported(raw, COMPLETIONS)
        params, prompts = body.params(), body.prompts()
        if len(prompts) * params.n > MAX_CHOICES:
            raise InvalidRequest(
                f"{len(prompts)} prompts with n = {params.n} are more than {MAX_CHOICES} answers",
                param="prompt",
            )
        state.model.check_name(body.model)
        response_id = f"cmpl-{secrets.token_hex(12)}"
        requests = []
        for index, prompt in enumerate(prompts):
            ids = await _completion_prompt(state, prompt)
            name = response_id if len(prompts) == 1 else f"{response_id}-{index}"
            requests.append(_request(state, name, ids, params))
        admission.check_room(state, requests)
    tokenizer = state.model.tokenizer
    shape = CompletionFormat(response_id, state.model.name, int(unix_s()), tokenizer, params)
    return await _answer(request, body.stream, body.includes_usage, requests, shape)


@routes.get("/v1/models")
async def models(request: HttpRequest) -> Response:
    """The one model that is served."""
    state = state_of(request)
    return json_response({"object": "list", "data": [model_card(state)]})


@routes.get("/v1/models/{name:path}")
async def model(request: HttpRequest) -> Response:
    """One model by its name."""
    state = state_of(request)
    state.model.check_name(request.path_params["name"])
    return json_response(model_card(state))


def model_card(state: ServerState) -> dict[str, Any]:
    """OpenAI's model object, with what clients of GGUF servers look for in `meta`."""
    facts = state.client.status.facts
    meta = dict(state.model.facts)
    if facts is not None:
        meta |= {"n_ctx": facts.n_ctx, "n_ctx_train": facts.n_ctx_train, "n_vocab": facts.n_vocab}
    return {
        "id": state.model.name,
        "object": "model",
        "created": state.model.created,
        "owned_by": "rocmforge",
        "meta": meta,
    }


async def _chat_prompt(state: ServerState, body: ChatBody) -> tuple[int, ...]:
    text = await render_chat(state, body.messages, variables=body.chat_template_kwargs)
    return await admission.encode(state, text, parse_special=True, param="messages")


async def _completion_prompt(state: ServerState, prompt: str | list[int]) -> tuple[int, ...]:
    if isinstance(prompt, list):
        return admission.check_prompt(state, prompt, "prompt")
    return await admission.encode(state, prompt, parse_special=True, param="prompt")


def _request(
    state: ServerState, name: str, ids: tuple[int, ...], params: SamplingParams
) -> Request:
    admission.check_params(state, params)
    eog_ids = tuple(sorted(state.model.tokenizer.eog_ids))
    return Request(request_id=RequestId(name), prompt_ids=ids, params=params, eog_ids=eog_ids)


async def _answer(
    request: HttpRequest,
    is_stream: bool | None,
    with_usage: bool,
    requests: list[Request],
    shape: AnswerFormat,
) -> Response:
    state = state_of(request)
    start = partial(Generation, state, route=shape.route, continuation=shape.is_continuation)
    several = Several([partial(start, one) for one in requests])
    if not is_stream:
        try:
            return await unless_client_leaves(request, _whole(several, shape))
        finally:
            await several.aclose()
    return event_stream(
        state,
        _chunks(several, shape, with_usage),
        failure=_failure,
        on_end=several.aclose,
    )


async def _whole(several: Several, shape: AnswerFormat) -> Response:
    async for index, deltas in several:
        for delta in deltas:
            shape.collect(index, delta)
    return json_response(shape.whole(several.usage()))


async def _chunks(
    several: Several, shape: AnswerFormat, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    writer = ChunkWriter(shape, with_usage=with_usage)
    openings = writer.openings(several.n_generations)
    async for index, deltas in several:
        # Only now: until the engine has said something, a refusal can still be a proper status.
        if chunks := openings + writer.deltas(index, deltas):
            yield chunks
        openings = b""
    yield writer.ending(several.usage())


def _failure(error: RocmForgeError) -> bytes:
    return event(openai_body(error))
