"""Structured logs on stderr: human on a terminal, one JSON object a line elsewhere.

Both processes call `configure_logging` once and then log events with fields:

    log = get_logger(__name__)
    log.info("engine_ready", pid=pid, load_s=2.1)

Lines of one request carry its id as `request_id`; in the server also that of the HTTP request,
bound with `http_log_context`.
Prompts and answers are never logged: tracebacks are written without local variables, and should a
field with such a name be given all the same, its length is written in place of its value.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from rocmforge.config import LogConfig

_TEXT_FIELDS: Final = frozenset(
    {"prompt", "prompt_ids", "messages", "text", "content", "completion", "generated", "token_ids"}
)


def configure_logging(config: LogConfig) -> None:
    """Send this process's log lines, the libraries' too, to stderr as `config` says."""
    as_json = config.format == "json" or (config.format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[config.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_text,
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        final += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        final += [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def log_to_host() -> None:
    """For a library in somebody else's process: events go to the standard loggers of their
    modules, whose level and handlers are the host's. Changes nothing that was configured before.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            hide_text,
            structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module; usable before `configure_logging`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def http_log_context(http_request_id: str) -> Iterator[None]:
    """Put the `x-request-id` of a request into every line that is logged inside, tasks started
    inside included."""
    with structlog.contextvars.bound_contextvars(http_request_id=http_request_id):
        yield


def hide_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the value of every field that holds what users wrote or read by its length."""
    for name in _TEXT_FIELDS & event.keys():
        event[name] = _length(event[name])
    return event


def _length(value: Any) -> str:
    return f"<{len(value)} hidden>" if isinstance(value, Sized) else "<hidden>"
