"""The server's one door to the engine: submit a request, iterate over its events.

    client = EngineClient(engine_config, supervisor_config)
    await client.start()                       # returns at once; client.status says how far it is
    with client.submit(request) as handle:     # or a RocmForgeError: not now, or not at all
        async for event in handle:             # RequestStarted · TokenOutput · Recovering
            ...
    await client.close()

The engine may die at any time: the events go on where they stopped, and only a Recovering marker
tells of it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from rocmforge.config import EngineConfig, LogConfig, SupervisorConfig
from rocmforge.errors import (
    EngineNotInitialized,
    EngineRecovering,
    ModelLoading,
    QueueCapacityExceeded,
)
from rocmforge.request import Request
from rocmforge.supervisor.handle import (
    MAX_UNREAD_EVENTS,
    Recovering,
    RequestEvent,
    RequestHandle,
)
from rocmforge.supervisor.journal import Journal
from rocmforge.supervisor.launch import ENGINE_COMMAND, LaunchedEngine
from rocmforge.supervisor.status import EngineState, EngineStatus
from rocmforge.supervisor.supervisor import Supervisor
from rocmforge.wire.channel import ChannelError
from rocmforge.wire.protocol import EngineFacts

__all__ = [
    "EngineClient",
    "EngineState",
    "EngineStatus",
    "Recovering",
    "RequestEvent",
    "RequestHandle",
]

DEFAULT_MAX_LIVE: Final = 1000
_DRAIN_LOOK_S: Final = 0.02


class EngineClient:
    """Requests in, events out, over however many engine processes it takes."""

    def __init__(
        self,
        engine_config: EngineConfig,
        supervisor_config: SupervisorConfig | None = None,
        *,
        max_live: int = DEFAULT_MAX_LIVE,
        max_unread: int = MAX_UNREAD_EVENTS,
        log_config: LogConfig | None = None,
        command: Sequence[str] = ENGINE_COMMAND,
        launched: LaunchedEngine | None = None,
    ) -> None:
        """`max_live`: requests journalled at once; `max_unread`: events of one request that may
        wait for its reader, at one more it fails; `command`: the engine program (for tests);
        `launched`: the first engine, made before."""
        self._journal = Journal()
        self._max_live = max_live
        self._max_unread = max_unread
        self._is_draining = False
        self._supervisor = Supervisor(
            engine_config,
            supervisor_config or SupervisorConfig(),
            self._journal,
            log_config=log_config,
            command=command,
            launched=launched,
        )

    @property
    def status(self) -> EngineStatus:
        """A snapshot of the engine and the requests; cheap."""
        return self._supervisor.status()

    async def start(self) -> None:
        """Start the engine process and return at once."""
        await self._supervisor.start()

    async def wait_ready(self, timeout_s: float | None = None) -> EngineFacts:
        """Wait until requests are served.

        Raises the error that makes the load impossible (state `failed`), EngineNotInitialized when
        closed meanwhile, TimeoutError after `timeout_s`.
        """
        return await self._supervisor.wait_ready(timeout_s)

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and wait for the live ones to end; False when some are left."""
        self._is_draining = True
        try:
            async with asyncio.timeout(timeout_s):
                while len(self._journal):
                    await asyncio.sleep(_DRAIN_LOOK_S)
        except TimeoutError:
            return False
        return True

    def cut_live(self) -> None:
        """Refuse new requests and end the live ones with EngineNotInitialized, at once."""
        self._is_draining = True
        self._supervisor.delivery.cut_all(
            EngineNotInitialized("the server is stopping; send the request again")
        )

    async def close(self) -> None:
        """Stop the engine; requests that are still live fail with EngineNotInitialized."""
        self._is_draining = True
        await self._supervisor.close()

    def submit(self, request: Request) -> RequestHandle:
        """Accept a request: it ends in exactly one way, whatever happens to the engine.

        While the engine recovers, requests are accepted and wait. A missing seed is drawn here, so
        that a resumed request repeats its draws.
        Raises ModelLoading, EngineRecovering (circuit open), EngineNotInitialized (failed or
        stopping), QueueCapacityExceeded, or InvalidRequest when the id is in use.
        """
        self._check_state()
        if len(self._journal) >= self._max_live:
            raise QueueCapacityExceeded(
                f"{self._max_live} requests are live already; try again later"
            )
        if request.params.seed is None:
            params = msgspec.structs.replace(request.params, seed=secrets.randbits(63))
            request = msgspec.structs.replace(request, params=params)
        handle = RequestHandle(
            request.request_id, self._supervisor.delivery.cancel, max_unread=self._max_unread
        )
        entry = self._journal.add(request, handle)
        try:
            self._supervisor.submit(entry)
        except ChannelError:
            self._journal.close(request.request_id, by_engine=True)
            raise
        return handle

    def _check_state(self) -> None:
        supervisor, state = self._supervisor, self._supervisor.state
        if self._is_draining or state is EngineState.stopped:
            raise EngineNotInitialized("the server is stopping; send the request to another one")
        if state is EngineState.failed:
            why = supervisor.last_error.message if supervisor.last_error else "see the log"
            raise EngineNotInitialized(f"no model is loaded: {why}")
        if state is EngineState.circuit_open:
            raise EngineRecovering(
                "the engine keeps failing; the next attempt is in "
                f"{supervisor.retry_in_s or 0.0:.0f} s"
            )
        if supervisor.facts is None:
            status = supervisor.status()
            raise ModelLoading(
                f"the model is being loaded: {status.load_percent:.0f} %"
                + (f" ({status.load_phase})" if status.load_phase else "")
            )
