from __future__ import annotations

import pytest

from rocmforge.errors import RequestNotFound
from rocmforge.request import FinishReason, RequestState
from rocmforge.server.registry import RequestRecord, RequestRegistry


def record(name: str) -> RequestRecord:
    return RequestRecord(name, "/generate", 1, 3)


def test_ended_requests_are_kept_up_to_a_number_and_live_ones_always():
    registry = RequestRegistry(n_ended=3)
    registry.add(record("live"))
    for i in range(5):
        one = record(str(i))
        registry.add(one)
        registry.end(one, RequestState.Completed)
    assert registry.get("live").state is RequestState.Pending
    assert registry.is_live("live")
    assert registry.n_live == 1
    assert registry.get("4").state is RequestState.Completed
    assert registry.get("2").ended_s is not None
    for gone in ("0", "1", "never"):
        with pytest.raises(RequestNotFound):
            registry.get(gone)


def test_status_fields():
    one = record("a")
    one.texts[0] = ["Hel", "lo"]
    one.finish_reasons[0] = FinishReason.stop
    fields = one.as_fields()
    assert fields["text"] == "Hello"
    assert fields["finish_reason"] == "stop"
    assert fields["finished"] is False
    several = RequestRecord("b", "/v1/completions", 2, 3)
    several.texts[1] = ["x"]
    assert several.as_fields()["text"] == ["", "x"]


def test_the_time_until_there_is_room_is_known_only_after_some_ends():
    registry = RequestRegistry()
    assert registry.seconds_until_room(1, 1) is None
    for i in range(10):
        one = record(str(i))
        one.n_queued_tokens = 100
        registry.add(one)
        registry.end(one, RequestState.Completed)
    # Ten ends and a thousand tokens in (less than) a second.
    assert registry.seconds_until_room(1, 1) == pytest.approx(0.1, rel=0.2)
    for i in range(10, 15):
        one = record(str(i))
        one.n_queued_tokens = 1000
        registry.add(one)
    assert registry.n_queued_tokens == 5000
    assert registry.seconds_until_room(3, 10_000) == pytest.approx(0.3, rel=0.2)
    assert registry.seconds_until_room(100, 1000) == pytest.approx(4.0, rel=0.2)
