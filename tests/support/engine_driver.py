"""A process that serves itself: it streams from a live engine until a signal or its death.

Says on stdout, one JSON object a line: {"engine_pid": …} once it is ready, {"n_least": …} after
each token, {"complete": bool} at its end. SIGINT and SIGTERM drain it.
"""

from __future__ import annotations

import asyncio
import json
import signal

from rocmforge.config import LogConfig
from rocmforge.observe.log import configure_logging
from tests.support.live_engine import Streams, live_engine, mixed_requests


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)  # noqa: T201


async def main() -> None:
    configure_logging(LogConfig(level="warning"))
    async with live_engine() as client:
        stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        say(engine_pid=client.status.pid)
        requests = mixed_requests(max_tokens=300)
        streams = Streams(client, requests)
        reading = asyncio.create_task(streams.read(lambda: say(n_least=streams.n_least)))
        await stopping.wait()
        is_drained = await client.drain(60.0)
        await reading
        say(complete=is_drained and streams.n_least == 300)


if __name__ == "__main__":
    asyncio.run(main())
