"""The life of the server: serves, and leaves in good order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn

from rocmforge.config import EngineConfig, LogConfig, ServerConfig
from rocmforge.errors import EngineNotInitialized, RocmForgeError
from rocmforge.heap import release_free_memory, settle
from rocmforge.observe.log import get_logger
from rocmforge.server.app import create_app, create_state
from rocmforge.server.connection import ConnectionSettings
from rocmforge.server.run import BACKLOG
from rocmforge.server.state import ServerState
from rocmforge.supervisor.launch import LaunchedEngine

_log = get_logger(__name__)
_LEAVE_S = 5
EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2


def run_server(
    engine_config: EngineConfig,
    config: ServerConfig,
    log_config: LogConfig | None,
    listener: socket.socket,
    launched: LaunchedEngine | None = None,
) -> int:
    """Serve on `listener`; see run.serve."""
    return asyncio.run(_serve(engine_config, config, log_config, listener, launched))


async def _serve(
    engine_config: EngineConfig,
    config: ServerConfig,
    log_config: LogConfig | None,
    listener: socket.socket,
    launched: LaunchedEngine | None,
) -> int:
    state = create_state(engine_config, config, log_config, launched=launched)
    server = _Server(
        ConnectionSettings(
            create_app(state),
            config,
            state.metrics.slow_client,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=_LEAVE_S,
        )
    )
    stopping = _Stopping(state, server)
    stopping.listen_to_signals()
    host, port = listener.getsockname()[:2]
    _log.info("listening", url=f"http://{host}:{port}", model=state.model.name)
    watching = asyncio.create_task(_watch_load(state, server))
    settling = asyncio.create_task(_settle(state))
    await server.serve([listener])
    settling.cancel()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await watching
    return EXIT_DONE


async def _watch_load(state: ServerState, server: uvicorn.Server) -> int:
    """Wait for the model; when it can never be loaded, stop the server and say why."""
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        await state.client.wait_ready()
    except EngineNotInitialized:
        return EXIT_DONE  # closed meanwhile
    except RocmForgeError as error:
        _log.error("model_not_loaded", error=error.message, kind=type(error).__name__)
        server.should_exit = True
        return EXIT_FAILED if error.is_internal_error() else EXIT_BAD_INPUT
    return EXIT_DONE


async def _settle(state: ServerState) -> None:
    """Once everything is there: no more of it is made for each request."""
    await state.model.is_loaded.wait()
    settle()
    await asyncio.to_thread(release_free_memory)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: a first signal drains, which it does not know."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Stopping:
    """A first signal refuses new work and lets running answers finish; a second ends them with
    their error, as the deadline does; a third leaves without a word."""

    def __init__(self, state: ServerState, server: uvicorn.Server) -> None:
        self._state = state
        self._server = server
        self._task: asyncio.Task[None] | None = None

    def listen_to_signals(self) -> None:
        """SIGHUP is what a terminal sends when it closes: then nobody is there any more. A daemon
        has no terminal, and whoever started us with `nohup` has said to ignore it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            return
        if _has_terminal():
            loop.add_signal_handler(signal.SIGHUP, self._on_signal, signal.SIGHUP)
        else:
            loop.add_signal_handler(signal.SIGHUP, _log.info, "hangup_ignored")

    def _on_signal(self, number: int) -> None:
        if self._task is None:
            _log.info("stopping", signal=signal.Signals(number).name)
            self._state.is_draining = True
            self._task = asyncio.create_task(self._drain())
        elif not self._server.should_exit:
            _log.warning("stopping_now", signal=signal.Signals(number).name)
            self._leave()
        else:
            self._server.force_exit = True

    async def _drain(self) -> None:
        timeout_s = self._state.config.drain_timeout_s
        if not await self._state.client.drain(timeout_s) and not self._server.should_exit:
            _log.warning("drain_timed_out", timeout_s=timeout_s)
        self._leave()

    def _leave(self) -> None:
        """No stream ends in silence: each gets its error, and _LEAVE_S to be read."""
        self._state.client.cut_live()
        self._server.should_exit = True


def _has_terminal() -> bool:
    """Whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
