"""The rules of sampling in numpy, slowly: which tokens a row may give.

More than one only where rounding may decide: within _EDGE of a border the neighbour counts too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from rocmforge import _native
from rocmforge.request import SamplingParams

BLOCK = 256
"""Logits per block of the native sampler."""
_HEAVY = 1 / 64
# Float weights are good to about 1e-6.
_EDGE = 1e-5
_CHOICE = 1


@dataclass(frozen=True)
class Row:
    """One row of logits float32 [V] with all that decides its token; choice 1."""

    logits: np.ndarray
    params: SamplingParams
    seed: int
    position: int
    prompt_ids: list[int]
    generated_ids: list[int]
    suppressed_ids: tuple[int, ...]


def accepted_tokens(row: Row) -> set[int]:
    """The token of the rules, and those that rounding may give instead."""
    logits = edited(row)
    p = row.params
    if p.temperature == 0:
        return {int(logits.argmax())}
    n_candidates = int(np.isfinite(logits).sum())
    is_cut = 0 < p.top_k < n_candidates
    if not is_cut and p.top_p == 1 and p.min_p == 0:
        return softmax_tokens(row, logits)
    order = np.argsort(-logits, kind="stable")[: p.top_k if is_cut else n_candidates]
    weights = weights_of(row, logits, order)
    if p.top_p < 1:
        reached = np.cumsum(weights)
        cuts = {
            int(np.searchsorted(reached, p.top_p * reached[-1] * (1 + edge))) + 1
            for edge in (-_EDGE, 0, _EDGE)
        }
        ordered = order
    else:
        cuts = {order.size}
        ordered = order if is_cut else np.sort(order)
    tokens: set[int] = set()
    for cut in range(min(cuts), max(cuts) + 1):
        inside = np.zeros(logits.size, bool)
        inside[order[:cut]] = True
        kept = ordered[inside[ordered]]
        likely = weights_of(row, logits, kept) >= p.min_p * (1 - 1e-12)
        tokens |= drawn(row, logits, kept[likely])
    return tokens


def edited(row: Row) -> np.ndarray:
    """Logits float32 [V] after penalties, biases and suppression."""
    p, logits = row.params, row.logits.copy()
    counts = Counter(dict.fromkeys(row.prompt_ids, 0) if p.repetition_penalty != 1 else {})
    counts.update(row.generated_ids)
    for token, count in counts.items():
        value = float(logits[token])
        value = value / p.repetition_penalty if value > 0 else value * p.repetition_penalty
        value -= p.frequency_penalty * count
        logits[token] = np.float32(value - (p.presence_penalty if count else 0.0))
    for token, bias in p.logit_bias.items():
        logits[token] += np.float32(bias)
    logits[list(row.suppressed_ids)] = -np.inf
    return logits


def weights_of(row: Row, logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Weights of tokens, that of the likeliest being 1."""
    chosen = logits[tokens].astype(np.float64)
    return np.exp((chosen - float(logits.max())) / row.params.temperature)


def drawn(row: Row, logits: np.ndarray, tokens: np.ndarray) -> set[int]:
    """Draw from tokens in their order."""
    reached = np.cumsum(weights_of(row, logits, tokens))
    u = _native.philox_uniform(row.seed, _CHOICE, row.position, 0)
    places = np.searchsorted(reached, reached[-1] * (u + np.array([-_EDGE, 0, _EDGE])), "right")
    low, high = places.min(), min(places.max(), tokens.size - 1)
    return set(tokens[low : high + 1].tolist())


def softmax_tokens(row: Row, logits: np.ndarray) -> set[int]:
    """A draw from all tokens by native/softmax_draw.h; every token where rounding may decide."""
    t, n = row.params.temperature, logits.size
    starts = np.arange(0, n, BLOCK)
    sizes = np.minimum(BLOCK, n - starts)
    maxima = np.maximum.reduceat(logits, starts).astype(np.float64)
    weights = np.exp((logits.astype(np.float64) - float(logits.max())) / t)
    peaks = np.exp((maxima - maxima.max()) / t)
    bounds = sizes * peaks
    limit = _HEAVY * bounds.sum()
    if np.any(np.abs(bounds - limit) < _EDGE * limit):
        return set(range(n))
    is_heavy = bounds > limit
    reached = np.cumsum(np.where(is_heavy, np.add.reduceat(weights, starts), bounds))
    for draw in range(1 << 16):
        high, low, third, fourth = philox_words(row, draw)
        target = reached[-1] * uniform(high, low)
        block = int(np.searchsorted(reached[:-1], target, "right"))
        if np.any(np.abs(reached - target) < _EDGE * reached[-1]):
            return set(range(n))
        start, size = int(starts[block]), int(sizes[block])
        if is_heavy[block]:
            before = reached[block - 1] if block else 0.0
            inside = before + np.cumsum(weights[start : start + size])
            if np.any(np.abs(inside - target) < _EDGE * reached[-1]):
                return set(range(start, start + size))
            return {start + int(np.searchsorted(inside, target, "right"))}
        product = third * size
        token = start + (product >> 32)
        share = weights[token] / peaks[block]
        v = uniform(fourth, product & 0xFFFFFFFF)
        if abs(v - share) < _EDGE:
            return set(range(n))
        if v < share:
            return {token}
    raise AssertionError("no try was accepted")


def philox_words(row: Row, draw: int) -> list[int]:
    """The random words of a draw."""
    low, high = row.position & 0xFFFFFFFF, row.position >> 32
    counter = [low, (high | draw << 8) & 0xFFFFFFFF, _CHOICE, 0]
    return _native.philox4x32_10(counter, row.seed & 0xFFFFFFFF, row.seed >> 32)


def uniform(high: int, low: int) -> float:
    """53 random bits in [0, 1)."""
    return ((high << 32 | low) >> 11) * 2.0**-53
