"""Checks that all settings share."""

from __future__ import annotations

from rocmforge.errors import InvalidConfiguration


def positive(name: str, value: float) -> None:
    """Raises InvalidConfiguration; NaN is not positive either."""
    if not value > 0:
        raise InvalidConfiguration(f"{name} must be positive, got {value}")
