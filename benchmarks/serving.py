"""The arithmetic of serve.py: what turns of concurrent clients say about a server."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Turn:
    """All clients once.

    seconds: from the requests until the last answer ended. n_tokens: generated, over all clients.
    arrivals_s: per client, when each of its pieces of text came, in seconds since the requests.
    cpu_s: processor seconds by process. n_prompt_tokens, n_cached_tokens: per client, as the server
    counts them.
    """

    seconds: float
    n_tokens: int
    arrivals_s: Sequence[Sequence[float]]
    cpu_s: dict[str, float] = field(default_factory=dict)
    n_prompt_tokens: Sequence[int] = ()
    n_cached_tokens: Sequence[int] = ()

    @property
    def tokens_per_s(self) -> float:
        """Over all clients, the time for the prompts included."""
        return self.n_tokens / self.seconds


@dataclass(frozen=True)
class Summary:
    """Several turns of one side. Times are quantiles over all clients and turns, the rest medians
    over the turns."""

    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    gap_p50_ms: float
    gap_p95_ms: float
    with_text: float
    """Pieces of text per token."""
    cpu_us_per_token: dict[str, float]
    prompt_tokens: float
    cached_tokens: float


@dataclass(frozen=True)
class Ratio:
    """Throughput of one side relative to another, turn by turn: the median and the extremes."""

    median: float
    low: float
    high: float


def summarize(turns: Sequence[Turn]) -> Summary:
    """The summary of at least one turn; 0 for gaps when nobody got two pieces."""
    first = [client[0] for turn in turns for client in turn.arrivals_s if client]
    gaps = [
        later - earlier
        for turn in turns
        for client in turn.arrivals_s
        for earlier, later in pairwise(client)
    ]
    return Summary(
        tokens_per_s=statistics.median(turn.tokens_per_s for turn in turns),
        ttft_p50_ms=_quantile_ms(first, 0.5),
        ttft_p95_ms=_quantile_ms(first, 0.95),
        gap_p50_ms=_quantile_ms(gaps, 0.5),
        gap_p95_ms=_quantile_ms(gaps, 0.95),
        with_text=statistics.median(
            sum(map(len, turn.arrivals_s)) / turn.n_tokens for turn in turns
        ),
        cpu_us_per_token={
            name: statistics.median(turn.cpu_s[name] / turn.n_tokens * 1e6 for turn in turns)
            for name in turns[0].cpu_s
        },
        prompt_tokens=_mean_over(turn.n_prompt_tokens for turn in turns),
        cached_tokens=_mean_over(turn.n_cached_tokens for turn in turns),
    )


def ratio_of(ours: Sequence[Turn], theirs: Sequence[Turn]) -> Ratio:
    """How many times the throughput of `theirs` ours is; turns are compared pairwise, because a
    machine that slows down does so for both."""
    ratios = [a.tokens_per_s / b.tokens_per_s for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def _quantile_ms(seconds: Sequence[float], q: float) -> float:
    return float(np.quantile(seconds, q)) * 1e3 if seconds else 0.0


def _mean_over(turns: Iterable[Sequence[int]]) -> float:
    counts = [count for turn in turns for count in turn]
    return statistics.fmean(counts) if counts else 0.0
