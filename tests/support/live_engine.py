"""A real engine process with the embedded model, its requests, and whoever kills it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rocmforge.config import EngineConfig, LogConfig, SupervisorConfig
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.request import Request, SamplingParams
from rocmforge.supervisor.client import EngineClient, EngineState, Recovering
from rocmforge.wire.protocol import TokenOutput

FAST_RESTART = {"restart_delay_s": 0.01, "restart_max_delay_s": 0.1}
MIN_LEFT = 20
"""A kill proves something only while every stream still lacks this many tokens."""


@asynccontextmanager
async def live_engine(
    model_path: Path = EMBEDDED_MODEL_PATH, **supervisor
) -> AsyncIterator[EngineClient]:
    """A client whose engine is ready; on the way out no engine process is left."""
    client = EngineClient(
        EngineConfig(model_path=str(model_path), n_threads=2, max_sequence_length=1024),
        SupervisorConfig(**(FAST_RESTART | supervisor)),
        log_config=LogConfig(level="warning"),
    )
    await client.start()
    try:
        await become_ready(client)
        yield client
    finally:
        await client.close()


async def become_ready(client: EngineClient, timeout_s: float = 60.0) -> None:
    """Wait for it, but not for an engine that keeps dying."""
    async with asyncio.timeout(timeout_s):
        while not client.status.is_ready:
            if client.status.state in (EngineState.failed, EngineState.circuit_open):
                raise client.status.last_error
            await asyncio.sleep(0.01)


def stream_request(name: str, *, n_prompt: int = 12, max_tokens: int = 100, **params) -> Request:
    """A request that runs to max_tokens, with a prompt of its own."""
    start = sum(map(ord, name))
    return Request(
        request_id=name,
        prompt_ids=tuple(10 + (start * 7 + i * i) % 180 for i in range(n_prompt)),
        params=SamplingParams(max_tokens=max_tokens, ignore_eos=True, **params),
    )


def mixed_requests(max_tokens: int = 100) -> list[Request]:
    """Greedy and sampled, short and long prompts, several choices, log-probabilities."""
    shape = {"max_tokens": max_tokens}
    return [
        stream_request("greedy", temperature=0.0, seed=1, **shape),
        stream_request("long prompt", n_prompt=600, temperature=0.0, seed=2, **shape),
        stream_request("sampled", temperature=1.0, seed=3, **shape),
        stream_request("choices", n=3, temperature=0.9, top_p=0.95, seed=4, **shape),
        stream_request("logprobs", temperature=1.2, top_k=40, logprobs=3, seed=5, **shape),
        stream_request(
            "penalties",
            temperature=0.8,
            min_p=0.02,
            repetition_penalty=1.2,
            presence_penalty=0.5,
            frequency_penalty=0.3,
            seed=6,
            **shape,
        ),
    ]


class Streams:
    """Reads the streams of requests at once and keeps what each choice got."""

    def __init__(self, client: EngineClient, requests: Sequence[Request]) -> None:
        self.client = client
        self.requests = requests
        self.tokens: dict[tuple[str, int], list[TokenOutput]] = {
            (request.request_id, choice): []
            for request in requests
            for choice in range(request.params.n)
        }
        self.n_recoveries = 0

    async def read(self, on_token: Callable[[], None] = lambda: None) -> Streams:
        """Submit all and read them to their ends, calling `on_token` after each token."""
        handles = [self.client.submit(request) for request in self.requests]
        await asyncio.gather(*(self._read_one(handle, on_token) for handle in handles))
        return self

    async def _read_one(self, handle, on_token) -> None:
        async for event in handle:
            if isinstance(event, TokenOutput):
                self.tokens[event.request_id, event.choice].append(event)
                on_token()
            self.n_recoveries += isinstance(event, Recovering)

    @property
    def n_least(self) -> int:
        """Tokens that the shortest stream has got."""
        return min(map(len, self.tokens.values()))

    @property
    def n_least_left(self) -> int:
        """Tokens that the stream nearest to its end lacks."""
        return min(r.params.max_tokens or 0 for r in self.requests) - max(
            map(len, self.tokens.values())
        )


class Striker:
    """Sends a signal to the engine each time every stream has got so many tokens more."""

    def __init__(self, streams: Streams, at: Sequence[int], signal_number: int = signal.SIGKILL):
        self._streams = streams
        self._at = list(at)
        self._signal = signal_number
        self._struck: int | None = None
        self.n_strikes = 0

    def __call__(self) -> None:
        pid = self._streams.client.status.pid
        if not self._at or self._streams.n_least < self._at[0] or pid in (None, self._struck):
            return
        # The condition under which a kill shows anything: all streams begun, none nearly done.
        assert self._streams.n_least >= 1
        assert self._streams.n_least_left >= MIN_LEFT, self._streams.n_least_left
        os.kill(pid, self._signal)
        self._struck = pid
        self._at.pop(0)
        self.n_strikes += 1


def processes_of_session(session: int) -> list[int]:
    """Living processes (zombies are not) of a session: an engine's pid names its session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z" and int(fields[3]) == session:
                found.append(int(entry.name))
    return found
