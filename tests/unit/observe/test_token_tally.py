"""The tally says what the client library's own metrics would."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from rocmforge.observe.token_tally import TokenTally

BOUNDS = (0.001, 0.01, 2.5)
GAPS = (0.0005, 0.001, 0.00100001, 0.5, 2.5, 2.6, 1e9)


def make(registry):
    return TokenTally(
        registry, counter=("x_tokens", "Tokens"), gaps=("x_gap", "Gaps"), bounds_s=BOUNDS
    )


def test_it_reads_like_the_librarys():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = make(ours)
    counter = Counter("x_tokens", "Tokens", registry=theirs)
    histogram = Histogram("x_gap", "Gaps", buckets=BOUNDS, registry=theirs)
    for gap_s in (None, *GAPS):
        tally.count(gap_s)
        counter.inc()
        if gap_s is not None:
            histogram.observe(gap_s)
    expected = [
        line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line
    ]
    assert generate_latest(ours).decode().splitlines() == expected


def test_names_are_taken():
    registry = CollectorRegistry()
    make(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        make(registry)
