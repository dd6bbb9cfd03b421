"""/tokenize, /detokenize, /apply-template: the text layer by itself; none needs the engine."""

from __future__ import annotations

import asyncio

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from rocmforge.server.body import read_object
from rocmforge.server.chat_prompt import render_chat
from rocmforge.server.responses import json_response
from rocmforge.server.routes import Routes
from rocmforge.server.schemas import ApplyTemplateBody, DetokenizeBody, TokenizeBody, parse
from rocmforge.server.state import state_of

routes = Routes()


@routes.post("/tokenize")
async def tokenize(request: HttpRequest) -> Response:
    """Text to token ids; with_pieces adds each token's text."""
    tokenizer = state_of(request).model.tokenizer
    body = parse(TokenizeBody, await read_object(request))
    ids = await asyncio.to_thread(
        tokenizer.encode,
        body.text(),
        add_special=body.add_special,
        parse_special=body.parse_special,
    )
    if body.with_pieces:
        pieces = [{"id": i, "piece": tokenizer.token_text(i)} for i in ids]
        return json_response({"tokens": pieces, "count": len(ids)})
    return json_response({"tokens": ids, "count": len(ids)})


@routes.post("/detokenize")
async def detokenize(request: HttpRequest) -> Response:
    """Token ids to text, control tokens by name."""
    tokenizer = state_of(request).model.tokenizer
    body = parse(DetokenizeBody, await read_object(request))
    text = await asyncio.to_thread(tokenizer.decode, body.tokens, skip_special=False)
    return json_response({"content": text})


@routes.post("/apply-template")
async def apply_template(request: HttpRequest) -> Response:
    """Messages to the prompt that a chat completion would use."""
    state = state_of(request)
    body = parse(ApplyTemplateBody, await read_object(request))
    prompt = await render_chat(
        state,
        body.messages,
        tools=body.tools,
        add_generation_prompt=body.add_generation_prompt,
        variables=body.chat_template_kwargs,
    )
    return json_response({"prompt": prompt})
