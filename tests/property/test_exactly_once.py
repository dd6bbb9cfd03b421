"""Whatever kills the engines, whenever: clients read exactly the undisturbed tokens."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fake_engine import ENDINGS, undisturbed
from tests.support.scripted_engine import read_all, request, scripted

# "hang" and "close" are only noticed after a while; each has a test of its own.
QUICK = sorted(set(ENDINGS) - {"hang", "close"})
LIFE = st.fixed_dictionaries({"after": st.integers(1, 25), "how": st.sampled_from(QUICK)})
REQUESTS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 25)), min_size=1, max_size=5)


@settings(max_examples=12, deadline=None)
@given(lives=st.lists(LIFE, max_size=4), sizes=REQUESTS)
def test_clients_read_the_undisturbed_tokens(lives, sizes):
    asked = [
        request(f"r{i}", n=n, max_tokens=max_tokens, seed=i)
        for i, (n, max_tokens) in enumerate(sizes)
    ]

    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with scripted(Path(folder), *lives, {}, script={"step_s": 0.0}) as client:
                handles = [client.submit(r) for r in asked]
                read = await asyncio.gather(*map(read_all, handles))
                assert read == [undisturbed(r) for r in asked]
                assert client.status.restarts_total <= len(lives)

    asyncio.run(scenario())
