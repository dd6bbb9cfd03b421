"""Settings of the server process that have a section of their own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from rocmforge.checks import positive


@dataclass(frozen=True, kw_only=True)
class OverloadConfig:
    """How much work may wait. max_queued_tokens: of all live requests, prompts and `max_tokens`
    or a usual answer's 1000; a request that finds as many is refused."""

    max_queued_tokens: int = 4_000_000

    def __post_init__(self) -> None:
        positive("max_queued_tokens", self.max_queued_tokens)


@dataclass(frozen=True, kw_only=True)
class SecurityConfig:
    """Who may ask. api_keys_file: keys beside those of the setting, one a line; read again on
    SIGHUP."""

    api_keys_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ConnectionConfig:
    """What one client may cost. Times in seconds.

    max_connections: open at once. header_timeout_s, body_timeout_s: for all headers and for the
    whole body. write_timeout_s: a client that takes nothing for so long is cut off.
    max_header_bytes: request line and headers. max_unread_events: a request whose client has so
    many tokens to read is ended.
    """

    max_connections: int = 4096
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    max_header_bytes: int = 32_768
    max_unread_events: int = 8192

    def __post_init__(self) -> None:
        for field in fields(self):
            positive(field.name, getattr(self, field.name))
