"""Counters of several engines are added up."""

from __future__ import annotations

from rocmforge.supervisor.status import sum_counters
from rocmforge.wire.protocol import EngineStats, RetryCount


def test_retries_are_added_by_operation():
    before = EngineStats(
        device_calls_total=10,
        retries=(
            RetryCount("copy", 1, 1, 0, (1, 1, 1, 1, 1), 1),
            RetryCount("launch", 3, 1, 0, (0, 0, 1, 1, 1), 3),
        ),
    )
    current = EngineStats(
        n_running=2,
        device_calls_total=5,
        retries=(RetryCount("launch", 4, 0, 1, (0, 0, 1, 1, 1), 4),),
    )
    total = sum_counters(before, current)
    assert (total.n_running, total.device_calls_total) == (2, 15)
    assert total.retries == (
        RetryCount("copy", 1, 1, 0, (1, 1, 1, 1, 1), 1),
        RetryCount("launch", 7, 1, 1, (0, 0, 2, 2, 2), 7),
    )
