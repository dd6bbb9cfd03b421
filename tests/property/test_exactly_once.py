"""Whatever kills the engines, whenever: clients read exactly the undisturbed tokens."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rocmforge.request import Request, RequestState
from rocmforge.supervisor.client import EngineClient
from rocmforge.wire.protocol import TokenOutput
from tests.support.fake_engine import ENDINGS, undisturbed
from tests.support.scripted_engine import request, scripted

# "hang" and "close" are only noticed after a while; each has a test of its own.
QUICK = sorted(set(ENDINGS) - {"hang", "close"})
LIFE = st.fixed_dictionaries(
    {
        "after": st.integers(1, 25),
        "how": st.sampled_from(QUICK),
        "cancel_lag": st.integers(0, 3),
    }
)
# Choices, tokens, and what the client cancels: (choice or all, after its how manieth token).
CANCEL = st.none() | st.tuples(st.none() | st.just(0), st.integers(0, 24))
REQUEST = st.tuples(st.integers(1, 3), st.integers(1, 25), CANCEL)


@settings(max_examples=15, deadline=None)
@given(
    lives=st.lists(LIFE, max_size=4),
    last_lag=st.integers(0, 3),
    plans=st.lists(REQUEST, min_size=1, max_size=5),
)
def test_clients_read_the_undisturbed_tokens_and_one_end(lives, last_lag, plans):
    async def scenario() -> None:
        lags = [*lives, {"cancel_lag": last_lag}]
        with tempfile.TemporaryDirectory() as folder:
            async with scripted(Path(folder), *lags, script={"step_s": 0.0}) as client:
                clients = [read(client, i, plan) for i, plan in enumerate(plans)]
                await asyncio.gather(*clients)
                assert client.status.restarts_total <= len(lives)
                assert client.status.n_live == 0

    asyncio.run(scenario())


async def read(client: EngineClient, number: int, plan) -> None:
    """One client: reads its stream, cancels as planned, and compares."""
    n, max_tokens, cancel = plan
    asked: Request = request(f"r{number}", n=n, max_tokens=max_tokens, seed=number)
    got: dict[int, list[int]] = {choice: [] for choice in range(n)}
    is_cancelled = had_ended = False
    handle = client.submit(asked)
    async for event in handle:
        if isinstance(event, TokenOutput):
            assert event.index == len(got[event.choice])
            got[event.choice].append(event.token_id)
            if cancel is not None and (event.choice, event.index) == (0, cancel[1]):
                is_cancelled, had_ended = True, handle.is_done
                handle.cancel(choice=cancel[0])
    expected = undisturbed(asked)
    if not is_cancelled:
        assert handle.state is RequestState.Completed
        assert got == expected
    elif cancel[0] is None:
        ended = RequestState.Completed if had_ended else RequestState.Cancelled
        assert handle.state is ended
        assert all(ids == expected[choice][: len(ids)] for choice, ids in got.items())
    else:
        assert handle.state is RequestState.Completed
        assert got == expected | {0: expected[0][: cancel[1] + 1]}
