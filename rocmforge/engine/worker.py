"""The engine process: `python -m rocmforge.engine.worker --fd N --beat-fd M`.

Its first message says which model to load; from then on one loop takes messages, runs a step and
sends what came out. It lives as long as its server does and no longer.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Final

from rocmforge.engine.engine import Engine
from rocmforge.engine.loop import IDLE_BEAT_S, EngineLoop
from rocmforge.engine.start import start_engine
from rocmforge.errors import InternalError, RocmForgeError
from rocmforge.observe.log import configure_logging, get_logger
from rocmforge.wire.beat import BeatPage, EnginePhase
from rocmforge.wire.channel import BlockingChannel, ChannelClosed, ChannelError
from rocmforge.wire.lifeline import die_with_parent, offer_to_oom_killer
from rocmforge.wire.protocol import (
    PROTOCOL_VERSION,
    EngineFailed,
    EngineReady,
    LoadProgress,
    StartEngine,
    ToEngine,
    WireError,
)

EXIT_FAILED: Final = 1
EXIT_ORPHANED: Final = 3
_log = get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to leave, or until the server is gone; the exit code."""
    parser = argparse.ArgumentParser(prog="rocmforge.engine.worker")
    parser.add_argument("--fd", type=int, required=True, help="the server's socket")
    parser.add_argument("--beat-fd", type=int, required=True, help="the page of counters")
    parser.add_argument("--weights-fd", type=int, help="the weights store that outlives it")
    options = parser.parse_args(argv)
    detach()
    channel = BlockingChannel.from_fd(options.fd)
    threading.Thread(
        target=leave_with_server, args=(options.fd,), name="server-watch", daemon=True
    ).start()
    page = BeatPage.attach(options.beat_fd)
    try:
        return _run(channel, page, options.weights_fd)
    except ChannelClosed:
        return EXIT_ORPHANED


def detach() -> None:
    """Leave the terminal to the server, and never outlive it. (The server starts engines in a
    session of their own; one that was started by hand makes its own.)
    """
    # Should native code crash, the log says which Python code had called it.
    faulthandler.enable()
    die_with_parent()
    offer_to_oom_killer()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getpid() != os.getpgid(0):
        os.setsid()


def leave_with_server(fd: int) -> None:
    """Wait until the other end of socket `fd` is closed, then end this process at once: a thread of
    its own, because a step may be long or stuck.
    """
    watch = select.poll()
    # No event is asked for: a hang-up is always reported, arriving messages are not.
    watch.register(fd, 0)
    while not any(event & (select.POLLHUP | select.POLLERR) for _, event in watch.poll()):
        continue
    os._exit(EXIT_ORPHANED)


def _run(channel: BlockingChannel, page: BeatPage, weights_fd: int | None) -> int:
    page.phase = EnginePhase.loading
    engine: Engine | None = None
    try:
        start, *early = _first_messages(channel)
        configure_logging(start.log)
        try:
            engine = _load(channel, page, start, weights_fd if start.shares_weights else None)
        finally:
            # What is mapped stays; an open file would keep a store that was refused in memory.
            if weights_fd is not None:
                os.close(weights_fd)
        page.phase = EnginePhase.serving
        return EngineLoop(channel, page, engine).run(early)
    except ChannelClosed:
        raise
    except RocmForgeError as error:
        return _give_up(channel, error, engine)
    # The last frame of this process: whatever went wrong, the server's clients and operators are
    # told more than that a process ended.
    except Exception as error:  # noqa: BLE001  # the process ends here, having said why
        _log.exception("engine_defect")
        defect = InternalError(f"the engine failed with {type(error).__name__}: {error}")
        # No counters: an engine that is broken may fail to count, and then nothing would be said.
        return _give_up(channel, defect, None)


def _first_messages(channel: BlockingChannel) -> tuple[StartEngine, *tuple[ToEngine, ...]]:
    messages: list[ToEngine] = []
    while not messages:
        messages = channel.receive(IDLE_BEAT_S)
    first = messages[0]
    if not isinstance(first, StartEngine):
        raise ChannelError(f"the first message must be StartEngine, got {type(first).__name__}")
    if first.protocol_version != PROTOCOL_VERSION:
        raise InternalError(
            f"the server speaks protocol {first.protocol_version}, this engine "
            f"{PROTOCOL_VERSION}: restart the server, its files have been replaced"
        )
    return (first, *messages[1:])


def _load(
    channel: BlockingChannel, page: BeatPage, start: StartEngine, store_fd: int | None
) -> Engine:
    def progress(phase: str, percent: float) -> None:
        page.beat()
        channel.send(LoadProgress(phase=phase, percent=percent))

    engine, facts = start_engine(
        start.config,
        progress=progress,
        op_counter=page.op_counter,
        beat=page.beat,
        check_invariants=start.log.level == "debug",
        is_replacement=start.is_replacement,
        store_fd=store_fd,
    )
    channel.send(EngineReady(facts=facts))
    return engine


def _give_up(channel: BlockingChannel, error: RocmForgeError, engine: Engine | None) -> int:
    """Say why, and leave: the server decides whether another engine is worth a try."""
    _log.error("engine_failed", error=error.message, type=type(error).__name__)
    stats = None if engine is None else engine.stats()
    channel.send(EngineFailed(error=WireError.of(error), stats=stats))
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
