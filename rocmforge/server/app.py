"""The ASGI application: routes, errors, lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from rocmforge.config import EngineConfig, LogConfig, ServerConfig
from rocmforge.errors import (
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    RocmForgeError,
    RouteNotFound,
)
from rocmforge.observe.log import get_logger
from rocmforge.observe.metrics import Metrics
from rocmforge.server import native, openai, operations, tokens
from rocmforge.server.admission import drain_s
from rocmforge.server.gateway import Gateway
from rocmforge.server.responses import CLIENT_LEFT_STATUS, error_response
from rocmforge.server.served_model import ServedModel
from rocmforge.server.state import ServerState, state_of
from rocmforge.server.stream import ClientLeft
from rocmforge.supervisor.client import EngineClient
from rocmforge.supervisor.launch import ENGINE_COMMAND, LaunchedEngine

_log = get_logger(__name__)


def create_state(
    engine_config: EngineConfig,
    config: ServerConfig,
    log_config: LogConfig | None = None,
    *,
    command: Sequence[str] = ENGINE_COMMAND,
    launched: LaunchedEngine | None = None,
) -> ServerState:
    """A server's state; nothing is started yet. command: the engine program (for tests). launched:
    the first engine, made before."""
    client = EngineClient(
        engine_config,
        config.supervisor,
        max_live=config.max_live_requests,
        max_unread=config.connections.max_unread_events,
        log_config=log_config,
        command=command,
        launched=launched,
    )
    metrics = Metrics(operations.EngineReader(client, config))
    model = ServedModel(engine_config.model_path, config)
    return ServerState(engine_config, config, client, model, metrics)


def create_app(state: ServerState) -> ASGIApp:
    """The app. Its lifespan starts the engine and returns at once: from the first second every
    request gets an answer, if only 503 `model_loading`."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await state.client.start()
        loading = asyncio.create_task(state.model.load())
        try:
            yield
        finally:
            state.is_draining = True
            await state.client.close()
            await loading
            await state.model.close()

    routes = [*openai.routes, *native.routes, *tokens.routes, *operations.routes]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.server = state
    for kind in (RocmForgeError, HTTPException, ClientLeft, Exception):
        app.add_exception_handler(kind, _refuse)
    return Gateway(app, state)


async def _refuse(request: Request, error: Exception) -> Response:
    """Every error's answer. What is not ours is a defect: the gateway logs its traceback."""
    if isinstance(error, ClientLeft):
        return Response(status_code=CLIENT_LEFT_STATUS)
    state, path = state_of(request), request.url.path
    problem = error if isinstance(error, RocmForgeError) else _as_ours(request, error)
    if problem.is_internal_error():
        _log.error("request_failed", error=problem.message, kind=type(problem).__name__)
    response = error_response(problem, path, state.config, drain_s(state))
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})  # 405 names the methods that are allowed
    return response


def _as_ours(request: Request, error: Exception) -> RocmForgeError:
    if not isinstance(error, HTTPException):
        return InternalError("the server failed on this request; its log says why")
    if error.status_code == 404:
        return RouteNotFound(f"there is no route {request.url.path[:200]!r}")
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.url.path[:200]!r} does not take {request.method}")
    return InvalidRequest(str(error.detail))
