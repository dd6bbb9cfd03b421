"""EngineClient over scripted engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rocmforge.config import EngineConfig, SupervisorConfig
from rocmforge.request import Request, SamplingParams
from rocmforge.supervisor.client import EngineClient, RequestHandle
from rocmforge.wire.protocol import TokenOutput
from tests.support.fake_engine import command

FAST = {
    "restart_delay_s": 0.01,
    "restart_max_delay_s": 0.05,
    "hang_timeout_s": 0.5,
    "load_timeout_s": 5.0,
    "circuit_open_s": 0.3,
}


@asynccontextmanager
async def scripted(
    tmp_path: Path, *lives: dict, ready: bool = True, max_live: int = 100, script=None, **config
) -> AsyncIterator[EngineClient]:
    """A client whose engines live the given lives, the last one again and again."""
    client = EngineClient(
        EngineConfig(),
        SupervisorConfig(**(FAST | config)),
        max_live=max_live,
        command=command(tmp_path / "lives", *lives, **(script or {})),
    )
    await client.start()
    try:
        if ready:
            await client.wait_ready(20.0)
        yield client
    finally:
        await client.close()


def request(name: str = "r", *, n: int = 1, max_tokens: int = 20, prompt=(1, 2), seed=3) -> Request:
    params = SamplingParams(n=n, max_tokens=max_tokens, seed=seed)
    return Request(request_id=name, prompt_ids=tuple(prompt), params=params)


async def read_all(handle: RequestHandle) -> dict[int, list[int]]:
    """Token ids per choice; every token is checked to be the next one of its choice."""
    result: dict[int, list[int]] = {}
    async for event in handle:
        if isinstance(event, TokenOutput):
            ids = result.setdefault(event.choice, [])
            assert event.index == len(ids)
            assert event.request_id == handle.request_id
            ids.append(event.token_id)
    return result
