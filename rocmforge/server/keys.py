"""The API keys: who may ask."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers

from rocmforge.config import ServerConfig
from rocmforge.errors import InvalidConfiguration, IoError

_READABLE_BY_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyRing:
    """The keys of the settings and of their file; only digests are kept."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises InvalidConfiguration or IoError when the file is not to be used."""
        self._config = config
        self._digests: tuple[bytes, ...] = ()
        self.reload()

    def __len__(self) -> int:
        return len(self._digests)

    def reload(self) -> None:
        """Read the file again; when that raises, the keys stay as they were."""
        path = self._config.security.api_keys_file
        keys = list(self._config.api_keys)
        if path is not None:
            keys += _keys_of(path)
        self._digests = tuple(_digest(key) for key in keys)

    def admits(self, headers: Headers) -> bool:
        """Whether a request has one of the keys; without keys, everyone is let in."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        candidates = [headers.get("x-api-key", "")]
        if scheme.lower() == "bearer":
            candidates.append(given.strip())
        # Digests, so that lengths do not show; every pair, so that the time taken says nothing.
        matches = [
            hmac.compare_digest(_digest(candidate), digest)
            for candidate in candidates
            for digest in self._digests
        ]
        return any(matches) or not self._digests


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _keys_of(path: Path) -> list[str]:
    """One key a line; `#` begins a comment line."""
    try:
        mode = path.stat().st_mode
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise IoError(f"cannot read the API keys in {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{path} with the API keys is not UTF-8") from error
    if mode & _READABLE_BY_OTHERS:
        raise InvalidConfiguration(f"{path} with the API keys is open to others: chmod 600 {path}")
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        # An open server is asked for by naming no file; an empty one is an accident.
        raise InvalidConfiguration(f"{path} has no API key: write one a line")
    return keys
