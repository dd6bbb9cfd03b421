"""The real server application over a scripted engine, in this process: what happens to an engine
is under control, and all the rest is real.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp

from rocmforge.config import EngineConfig, ServerConfig, SupervisorConfig
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.server.app import create_app, create_state
from rocmforge.server.state import ServerState
from tests.support.fake_engine import command
from tests.support.scripted_engine import FAST

# Below every vocabulary here, so that each token has a text.
N_TOKENS = 256


@dataclass
class ScriptedServer:
    """A server, its state, and a client of it."""

    state: ServerState
    app: ASGIApp
    client: httpx.AsyncClient

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(path)

    async def post(self, path: str, body: object = None) -> httpx.Response:
        return await self.client.post(path, json={} if body is None else body)

    async def health(self) -> tuple[int, dict]:
        answer = await self.get("/health")
        return answer.status_code, answer.json()

    @asynccontextmanager
    async def stream(self, path: str, body: object) -> AsyncIterator[Stream]:
        """A stream; its client leaves at the end of the block."""
        one = Stream(self.app, path, body)
        try:
            yield one
        finally:
            await one.leave()

    async def samples(self) -> dict[tuple[str, tuple], float]:
        """Every sample of /metrics: (name, sorted labels) → value."""
        families = text_string_to_metric_families((await self.get("/metrics")).text)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    async def sample(self, name: str, **labels: str) -> float:
        return (await self.samples())["rocmforge_" + name, tuple(sorted(labels.items()))]


class Stream:
    """A response read event by event, which httpx's transport for applications cannot do."""

    def __init__(self, app: ASGIApp, path: str, body: object) -> None:
        self._blocks: asyncio.Queue[str | None] = asyncio.Queue()
        self._left = asyncio.Event()
        self._body = [json.dumps(body).encode()]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        self._serving = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict) -> None:
        if message["type"] != "http.response.body":
            return
        for block in message.get("body", b"").decode().split("\n\n"):
            if block and not block.startswith(":"):
                self._blocks.put_nowait(block)
        if not message.get("more_body", False):
            self._blocks.put_nowait(None)

    async def next(self) -> tuple[str, dict] | None:
        """The next event; None after the last."""
        block = await asyncio.wait_for(self._blocks.get(), 20)
        return None if block is None else parse_event(block)

    async def rest(self) -> list[tuple[str, dict]]:
        """All events to the end."""
        found = []
        while (one := await self.next()) is not None:
            found.append(one)
        return found

    async def leave(self) -> None:
        """Close the connection, and wait until the server has noticed."""
        self._left.set()
        await asyncio.wait_for(self._serving, 20)


def parse_event(block: str) -> tuple[str, dict]:
    """(name, data) of one event; the default name is `message`."""
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    return fields.get("event", "message"), json.loads(fields["data"])


@asynccontextmanager
async def scripted_server(
    tmp_path: Path,
    *lives: dict,
    model: Path = EMBEDDED_MODEL_PATH,
    ready: bool = True,
    script: dict | None = None,
    server: dict | None = None,
    **supervisor: object,
) -> AsyncIterator[ScriptedServer]:
    """A server whose engines live the given lives, the last one again and again."""
    tmp_path.mkdir(exist_ok=True)
    config = ServerConfig(
        supervisor=SupervisorConfig(**(FAST | supervisor)), **({} if server is None else server)
    )
    script = {"n_vocab": N_TOKENS} | ({} if script is None else script)
    state = create_state(
        EngineConfig(model_path=str(model)),
        config,
        command=command(tmp_path / "lives", *lives, **script),
    )
    app = create_app(state)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        await state.model.load()
        # Last, so that a test sees the engine's first moments.
        await state.client.start()
        if ready:
            await state.client.wait_ready(20.0)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            yield ScriptedServer(state, app, client)
    finally:
        await state.client.close()
        await state.model.close()
