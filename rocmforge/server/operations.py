"""/health, /ready, /props, /metrics: what operators and probes ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

import rocmforge
from rocmforge.clock import unix_s
from rocmforge.config import ServerConfig
from rocmforge.observe.metrics import CONTENT_TYPE
from rocmforge.server.responses import json_response
from rocmforge.server.routes import Routes
from rocmforge.server.state import ServerState, state_of
from rocmforge.supervisor.client import EngineClient, EngineState, EngineStatus
from rocmforge.supervisor.crash_report import CrashCause
from rocmforge.supervisor.status import sum_retries
from rocmforge.wire.protocol import RETRY_BUCKETS, EngineFacts, RetryCount

routes = Routes()
NO_GPU: Final = "no GPU backend in this build"
# An engine at work beats at every operation and an idle one several times a second: silence of this
# length is no delay. Probes hear of it long before `hang_timeout_s` costs the engine its life.
_SILENCE_S: Final = 2.0
# Those of every step: their series exist before a first retry, which then shows as an increase.
_NO_RETRIES: Final = tuple(
    RetryCount(operation, 0, 0, 0, (0,) * len(RETRY_BUCKETS), 0)
    for operation in ("allocate_buffer", "copy_from_device", "launch")
)


@routes.get("/health")
async def health(request: HttpRequest) -> Response:
    """200 when requests are or will soon be served, 503 when they are not."""
    body = health_body(state_of(request))
    return json_response(body, 503 if body["status"] == "unhealthy" else 200)


@routes.get("/ready")
async def ready(request: HttpRequest) -> Response:
    """200 when a request would be served now, else 503 with the reason."""
    reason = not_ready_reason(state_of(request))
    if reason is None:
        return json_response({"ready": True})
    return json_response({"ready": False, "reason": reason}, 503)


@routes.get("/props")
async def props(request: HttpRequest) -> Response:
    """What really runs, and its limits."""
    return json_response(props_body(state_of(request)))


@routes.get("/metrics")
async def metrics(request: HttpRequest) -> Response:
    """For Prometheus."""
    return Response(state_of(request).metrics.render(), media_type=CONTENT_TYPE)


def is_hung(status: EngineStatus, config: ServerConfig) -> bool:
    """Whether the engine shows no sign of life while it should; idle engines beat too."""
    limit_s = min(_SILENCE_S, config.supervisor.hang_timeout_s)
    return status.is_ready and status.beat_age_s is not None and status.beat_age_s > limit_s


def not_ready_reason(state: ServerState) -> str | None:
    """Why a request would not be served now; None when it would."""
    status = state.client.status
    if state.is_draining:
        return "the server is stopping"
    if is_hung(status, state.config):
        return f"the engine gives no sign of life for {status.beat_age_s:.1f} s"
    if status.is_ready:
        problem = state.model.problem
        return problem.message if problem is not None else None
    if status.state in (EngineState.starting, EngineState.loading) and status.facts is None:
        return f"the model is being loaded: {status.load_percent:.0f} %"
    why = f": {status.last_error.message}" if status.last_error else ""
    if status.circuit_closes_in_s is not None:
        return f"the engine keeps failing; next attempt in {status.circuit_closes_in_s:.0f} s{why}"
    return f"the engine is {str(status.state).replace('_', ' ')}{why}"


def health_body(state: ServerState) -> dict[str, Any]:
    """`healthy` serves; `degraded` will serve what it accepts (recovering, stopping); `unhealthy`
    does not."""
    status, reason = state.client.status, not_ready_reason(state)
    running = status.is_ready and not is_hung(status, state.config)
    # An engine that has never been ready leaves requests refused, not waiting.
    recovers = status.state is EngineState.recovering and status.facts is not None
    if reason is None:
        word = "healthy"
    elif recovers or (running and state.is_draining):
        word = "degraded"
    else:
        word = "unhealthy"
    return {
        "status": word,
        "reason": reason,
        "checks": {
            "engine": {
                "running": running,
                "model_loaded": status.is_ready,
                "state": str(status.state),
                "load_percent": status.load_percent,
                "restarts": status.restarts_total,
            },
            "gpu": {"available": False, "error": NO_GPU},
            "requests": {"active": status.stats.n_running, "queued": _n_queued(status)},
            "cache": _cache_body(status),
        },
    }


def _cache_body(status: EngineStatus) -> dict[str, Any]:
    n_pages, n_used = _n_pages(status), status.stats.blocks_used
    return {
        "pages": {"used": n_used, "total": n_pages, "free": n_pages - n_used},
        "pages_cached": status.stats.blocks_cached,
        "active_sequences": status.stats.n_running,
    }


def _n_pages(status: EngineStatus) -> int:
    """Pages of the cache that is there now: a dead engine has none."""
    return status.facts.n_blocks if status.is_ready and status.facts is not None else 0


def _n_queued(status: EngineStatus) -> int:
    """What waits. While an engine is being replaced, all that was accepted does."""
    return status.stats.n_waiting if status.is_ready else status.n_live


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
    states: dict[str, bool]
    retries: tuple[RetryCount, ...]
    retry_bounds: tuple[int, ...]
    info: dict[str, str]


class EngineReader:
    """Turns the engine's status into the numbers that observe.metrics declares."""

    def __init__(self, client: EngineClient, config: ServerConfig) -> None:
        self._client = client
        self._config = config

    def __call__(self) -> EngineNumbers:
        """The numbers now."""
        status = self._client.status
        return EngineNumbers(
            gauges=self._gauges(status),
            counters=_counters(status),
            restarts={
                str(cause): status.restarts_by_cause.get(str(cause), 0) for cause in CrashCause
            },
            states={str(state): state is status.state for state in EngineState},
            retries=sum_retries(_NO_RETRIES, status.stats.retries),
            retry_bounds=RETRY_BUCKETS,
            info=_info(status.facts),
        )

    def _gauges(self, status: EngineStatus) -> dict[str, float]:
        stats = status.stats
        return {
            "engine_up": float(status.is_ready and not is_hung(status, self._config)),
            "engine_load_percent": status.load_percent,
            "active_requests": stats.n_running,
            "queue_length": _n_queued(status),
            "live_requests": status.n_live,
            "cache_pages_used": stats.blocks_used,
            "cache_pages_cached": stats.blocks_cached,
            "cache_pages_total": _n_pages(status),
            "last_step_seconds": stats.last_step_ms / 1000,
        }


def _counters(status: EngineStatus) -> dict[str, float]:
    stats = status.stats
    return {
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
        "gpu_calls": stats.device_calls_total,
        "faults_injected": stats.faults_injected_total,
        "memory_recoveries": stats.memory_recoveries_total,
    }


def _info(facts: EngineFacts | None) -> dict[str, str]:
    if facts is None:
        return {}
    return {
        "version": rocmforge.__version__,
        "backend": facts.backend,
        "device": facts.device,
        "isa": facts.isa,
        "kv_type": facts.kv_type,
        "architecture": facts.architecture,
        "deterministic": str(facts.deterministic).lower(),
    }
