"""How often, and how patiently, a device operation is tried again."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Final

from rocmforge.errors import InvalidConfiguration

# Each delay is stretched or shrunk by up to this share, so that many do not retry at once.
JITTER_SHARE: Final = 0.125


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """At most `max_retries` further calls; delays in milliseconds grow from initial_delay_ms by
    backoff_multiplier up to max_delay_ms.

    jitter: ±12.5 % of each delay, after the cap.
    """

    max_retries: int = 3
    initial_delay_ms: float = 10.0
    backoff_multiplier: float = 2.0
    max_delay_ms: float = 1000.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise InvalidConfiguration(f"max_retries must be 0 or more, got {self.max_retries}")
        for name in ("initial_delay_ms", "max_delay_ms"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InvalidConfiguration(f"{name} must be 0 or more and finite, got {value}")
        if not 1 <= self.backoff_multiplier < math.inf:
            raise InvalidConfiguration(
                f"backoff_multiplier must be at least 1 and finite, got {self.backoff_multiplier}"
            )

    @classmethod
    def no_retry(cls) -> RetryConfig:
        """One call and no other."""
        return cls(max_retries=0)

    def with_max_retries(self, max_retries: int) -> RetryConfig:
        """The same with another number of retries."""
        return replace(self, max_retries=max_retries)

    def with_initial_delay_ms(self, initial_delay_ms: float) -> RetryConfig:
        """The same with another first delay."""
        return replace(self, initial_delay_ms=initial_delay_ms)

    def with_backoff_multiplier(self, backoff_multiplier: float) -> RetryConfig:
        """The same with another growth of the delays."""
        return replace(self, backoff_multiplier=backoff_multiplier)

    def with_max_delay_ms(self, max_delay_ms: float) -> RetryConfig:
        """The same with another cap."""
        return replace(self, max_delay_ms=max_delay_ms)

    def with_jitter(self, jitter: bool) -> RetryConfig:
        """The same with or without jitter."""
        return replace(self, jitter=jitter)

    def delay_for_attempt(self, attempt: int) -> float:
        """Milliseconds to wait after call number `attempt` (from 0) failed; defined for any number.

        Raises InvalidConfiguration for a negative one.
        """
        if attempt < 0:
            raise InvalidConfiguration(f"attempts count from 0, got {attempt}")
        delay_ms = min(self._grown_ms(attempt), self.max_delay_ms)
        if not self.jitter:
            return delay_ms
        return delay_ms * (1.0 + random.uniform(-JITTER_SHARE, JITTER_SHARE))

    def _grown_ms(self, attempt: int) -> float:
        if self.initial_delay_ms == 0 or self.backoff_multiplier == 1:
            return float(self.initial_delay_ms)
        try:
            return self.initial_delay_ms * self.backoff_multiplier**attempt
        except OverflowError:
            return math.inf
