"""An engine that stands still is noticed, replaced, and its streams go on."""

from __future__ import annotations

import signal
import time

from tests.support.live_engine import (
    Streams,
    Striker,
    live_engine,
    mixed_requests,
    processes_of_session,
)


async def test_a_stopped_engine_is_replaced_and_its_streams_go_on():
    requests = mixed_requests(max_tokens=60)
    async with live_engine(hang_timeout_s=1.0) as client:
        undisturbed = await Streams(client, requests).read()
        hung_pid = client.status.pid
        streams = Streams(client, requests)
        striker = Striker(streams, at=(3,), signal_number=signal.SIGSTOP)
        start_s = time.monotonic()
        await streams.read(on_token=striker)
        assert time.monotonic() - start_s > 1.0
        assert striker.n_strikes == 1
        assert client.status.restarts_by_cause == {"hung": 1}
        assert not processes_of_session(hung_pid)
        (report,) = client.status.crashes
        assert report.phase == "serving"
        assert sorted(report.in_flight) == sorted(r.request_id for r in requests)
    assert streams.tokens == undisturbed.tokens
