"""Starts the server process. What costs time, and is not needed to start, is imported late: an
engine that was launched before works meanwhile."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from rocmforge.config import EngineConfig, LogConfig, ServerConfig
from rocmforge.errors import InvalidConfiguration
from rocmforge.supervisor.launch import LaunchedEngine

BACKLOG: Final = 2048


def serve(
    engine_config: EngineConfig,
    config: ServerConfig,
    log_config: LogConfig | None = None,
    *,
    launched: LaunchedEngine | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM, or until it is certain that the model can never be loaded.

    `launched`: the first engine, already told what to load. Returns the process's exit code. Raises
    InvalidConfiguration when the address is not to be had.
    """
    listener = _listen(config)
    with contextlib.closing(listener):
        from rocmforge.server.lifetime import run_server

        return run_server(engine_config, config, log_config, listener, launched)


def _listen(config: ServerConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        # At once: who connects before the first answer can be given waits instead of failing.
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise InvalidConfiguration(
            f"cannot listen on {config.host}:{config.port} ({error}); "
            "choose another address with --host and --port"
        ) from error
    return listener
