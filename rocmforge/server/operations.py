"""/health, /ready, /props, /metrics: what operators and probes ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

import rocmforge
from rocmforge.clock import unix_s
from rocmforge.config import ServerConfig
from rocmforge.observe.metrics import CONTENT_TYPE
from rocmforge.server.responses import json_response
from rocmforge.server.state import ServerState, state_of
from rocmforge.supervisor.client import EngineClient, EngineState, EngineStatus

router = APIRouter()
NO_GPU = "no GPU backend in this build"


@router.get("/health")
async def health(request: HttpRequest) -> Response:
    """200 when requests are or will soon be served, 503 when they are not."""
    body = health_body(state_of(request))
    return json_response(body, 503 if body["status"] == "unhealthy" else 200)


@router.get("/ready")
async def ready(request: HttpRequest) -> Response:
    """200 when a request would be served now, else 503 with the reason."""
    reason = not_ready_reason(state_of(request))
    if reason is None:
        return json_response({"ready": True})
    return json_response({"ready": False, "reason": reason}, 503)


@router.get("/props")
async def props(request: HttpRequest) -> Response:
    """What really runs, and its limits."""
    return json_response(props_body(state_of(request)))


@router.get("/metrics")
async def metrics(request: HttpRequest) -> Response:
    """For Prometheus."""
    return Response(state_of(request).metrics.render(), media_type=CONTENT_TYPE)


def is_hung(status: EngineStatus, config: ServerConfig) -> bool:
    """Whether the engine shows no sign of life while it should; idle engines beat too."""
    limit_s = min(2.0, config.supervisor.hang_timeout_s)
    return status.is_ready and status.beat_age_s is not None and status.beat_age_s > limit_s


def not_ready_reason(state: ServerState) -> str | None:
    """Why a request would not be served now; None when it would."""
    status = state.client.status
    if state.is_draining:
        return "the server is stopping"
    if is_hung(status, state.config):
        return f"the engine gives no sign of life for {status.beat_age_s:.1f} s"
    if status.is_ready:
        return None
    if status.state in (EngineState.starting, EngineState.loading) and status.facts is None:
        return f"the model is being loaded: {status.load_percent:.0f} %"
    why = f": {status.last_error.message}" if status.last_error else ""
    return f"the engine is {str(status.state).replace('_', ' ')}{why}"


def health_body(state: ServerState) -> dict[str, Any]:
    """`healthy` serves; `degraded` will serve what it accepts (recovering, stopping); `unhealthy`
    does not."""
    status, stats = state.client.status, state.client.status.stats
    running = status.is_ready and not is_hung(status, state.config)
    if running and not state.is_draining:
        word = "healthy"
    elif running or status.state is EngineState.recovering:
        word = "degraded"
    else:
        word = "unhealthy"
    n_pages = status.facts.n_blocks if status.facts is not None else 0
    pages = {
        "used": stats.blocks_used,
        "total": n_pages,
        "free": n_pages - stats.blocks_used,
    }
    return {
        "status": word,
        "reason": not_ready_reason(state),
        "checks": {
            "engine": {
                "running": running,
                "model_loaded": running or (status.is_ready and status.facts is not None),
                "state": str(status.state),
                "load_percent": status.load_percent,
                "restarts": status.restarts_total,
            },
            "gpu": {"available": False, "error": NO_GPU},
            "requests": {"active": stats.n_running, "queued": stats.n_waiting},
            "cache": {
                "pages": pages,
                "pages_cached": stats.blocks_cached,
                "active_sequences": stats.n_running,
            },
        },
    }


def props_body(state: ServerState) -> dict[str, Any]:
    """The body of /props."""
    status = state.client.status
    config, scheduling = state.config, state.engine_config.scheduler
    facts = (
        {name: getattr(status.facts, name) for name in status.facts.__struct_fields__}
        if (status.facts is not None)
        else None
    )
    return {
        "version": rocmforge.__version__,
        "uptime_s": round(unix_s() - state.started_s, 1),
        "model": {"name": state.model.name, "names": sorted(state.model.names)} | state.model.facts,
        "engine": {
            "state": str(status.state),
            "pid": status.pid,
            "restarts": status.restarts_total,
            "restarts_by_cause": dict(status.restarts_by_cause),
            "requests_resumed": status.requests_resumed_total,
            "load_phase": status.load_phase,
            "load_percent": status.load_percent,
            "last_error": status.last_error.message if status.last_error else None,
            "crashes": [crash.as_fields() for crash in status.crashes],
            "facts": facts,
        },
        "limits": {
            "max_batch_size": scheduling.max_batch_size,
            "max_step_tokens": scheduling.max_step_tokens,
            "max_queue": scheduling.max_queue,
            "max_live_requests": config.max_live_requests,
            "max_body_bytes": config.max_body_bytes,
        },
    }


@dataclass(frozen=True)
class EngineNumbers:
    """The engine's side of /metrics (an observe.metrics.EngineReading)."""

    gauges: dict[str, float]
    counters: dict[str, float]
    restarts: dict[str, int]
    info: dict[str, str]


class EngineReader:
    """Turns the engine's status into numbers; the rate is that of the last step."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    def __call__(self) -> EngineNumbers:
        """The numbers now."""
        status = self._client.status
        stats, facts = status.stats, status.facts
        step_s = stats.last_step_ms / 1000
        return EngineNumbers(
            gauges={
                "engine_up": float(status.is_ready),
                "engine_load_percent": status.load_percent,
                "active_requests": stats.n_running,
                "queue_length": stats.n_waiting,
                "live_requests": status.n_live,
                "tokens_per_second": stats.last_step_tokens / step_s if step_s > 0 else 0.0,
                "cache_pages_used": stats.blocks_used,
                "cache_pages_cached": stats.blocks_cached,
                "cache_pages_total": facts.n_blocks if facts is not None else 0,
                "last_step_seconds": step_s,
            },
            counters={
                "engine_steps": stats.steps_total,
                "engine_prompt_tokens": stats.prompt_tokens_total,
                "engine_generated_tokens": stats.generated_tokens_total,
                "engine_prefill_seconds": stats.prefill_s_total,
                "engine_decode_seconds": stats.decode_s_total,
                "prefix_cache_queries": stats.prefix_queries_total,
                "prefix_cache_hits": stats.prefix_hits_total,
                "prefix_cache_hit_tokens": stats.prefix_hit_tokens_total,
                "preemptions": stats.preemptions_total,
                "requests_resumed": status.requests_resumed_total,
            },
            restarts={str(cause): n for cause, n in status.restarts_by_cause.items()},
            info={}
            if facts is None
            else {
                "backend": facts.backend,
                "device": facts.device,
                "isa": facts.isa,
                "kv_type": facts.kv_type,
                "architecture": facts.architecture,
            },
        )
