"""The model file goes bad while it is served: serving goes on, and a restart waits for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal

import pytest

from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.errors import EngineRecovering, ModelError
from rocmforge.supervisor.client import EngineClient, EngineState
from tests.support.live_engine import Streams, live_engine, mixed_requests


async def wait_for_state(client: EngineClient, state: EngineState) -> None:
    async with asyncio.timeout(30.0):
        while client.status.state is not state:
            await asyncio.sleep(0.01)


async def test_a_file_truncated_while_serving_costs_nothing(tmp_path):
    requests = mixed_requests(max_tokens=60)
    model = tmp_path / "model.gguf"
    shutil.copy(EMBEDDED_MODEL_PATH, model)
    async with live_engine(model, max_restarts=2, circuit_open_s=0.5) as client:
        undisturbed = await Streams(client, requests).read()
        streams = Streams(client, requests)

        def truncate_once() -> None:
            if streams.n_least >= 3 and model.stat().st_size:
                os.truncate(model, 0)

        await streams.read(on_token=truncate_once)
        assert model.stat().st_size == 0
        assert client.status.restarts_total == 0
        assert streams.tokens == undisturbed.tokens

        # An engine that must be restarted now cannot: refusals, not a dead server …
        os.kill(client.status.pid, signal.SIGKILL)
        await wait_for_state(client, EngineState.circuit_open)
        with pytest.raises(EngineRecovering):
            client.submit(requests[0])
        assert isinstance(client.status.last_error, ModelError)
        # … and it serves again once the file is good.
        shutil.copy(EMBEDDED_MODEL_PATH, model)
        await client.wait_ready(30.0)
        again = await Streams(client, requests).read()
        assert again.tokens == undisturbed.tokens


async def test_a_first_load_of_a_bad_file_fails_for_good(tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(EMBEDDED_MODEL_PATH.read_bytes()[:5000])
    with pytest.raises(ModelError):
        async with live_engine(model):
            pass


async def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere\.gguf"):
        async with live_engine(tmp_path / "nowhere.gguf"):
            pass
