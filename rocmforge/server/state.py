"""What all routes share: `request.app.state.server`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request

from rocmforge.clock import unix_s
from rocmforge.config import EngineConfig, ServerConfig
from rocmforge.errors import EngineNotInitialized
from rocmforge.observe.metrics import Metrics
from rocmforge.server.registry import RequestRegistry
from rocmforge.server.served_model import ServedModel
from rocmforge.supervisor.client import EngineClient


@dataclass
class ServerState:
    """One server: its settings, its engine, its model, its requests."""

    engine_config: EngineConfig
    config: ServerConfig
    client: EngineClient
    model: ServedModel
    metrics: Metrics
    registry: RequestRegistry = field(default_factory=RequestRegistry)
    started_s: float = field(default_factory=unix_s)
    is_draining: bool = False
    # Requests admitted whose body, template or tokens are still being worked on.
    n_arriving: int = 0

    @property
    def n_ctx(self) -> int:
        """Positions of one sequence. Raises EngineNotInitialized before the engine was ready."""
        facts = self.client.status.facts
        if facts is None:
            raise EngineNotInitialized("the engine has not been ready yet")
        return facts.n_ctx


def state_of(request: Request) -> ServerState:
    """The state of the app that serves this request."""
    return cast(ServerState, request.app.state.server)
