"""Exactly the next token of a running choice, or a protocol violation."""

from __future__ import annotations

import pytest

from rocmforge.errors import InvalidRequest
from rocmforge.request import FinishReason, Request, SamplingParams
from rocmforge.supervisor.handle import RequestHandle
from rocmforge.supervisor.journal import MAX_RECENTLY_CLOSED, Journal, ProtocolViolation
from rocmforge.wire.protocol import TokenOutput


def request(request_id="r", n=1, **fields) -> Request:
    params = SamplingParams(n=n, seed=1)
    return Request(request_id=request_id, prompt_ids=(1, 2), params=params, **fields)


def add(journal: Journal, request: Request):
    entry = journal.add(request, RequestHandle(request.request_id, lambda *_: None))
    entry.in_engine = True
    return entry


def test_tokens_are_written_down_in_order_per_choice():
    journal = Journal()
    entry = add(journal, request(n=2))
    for choice, index, token_id in [(0, 0, 10), (1, 0, 20), (1, 1, 21), (0, 1, 11)]:
        assert journal.record(TokenOutput("r", choice, index, token_id)) is entry
    journal.record(TokenOutput("r", 1, 2, 22, FinishReason.stop))
    assert not entry.is_complete
    resumed = entry.to_request()
    assert resumed.generated == ((10, 11), (20, 21, 22))
    assert resumed.finished == (1,)
    assert (resumed.prompt_ids, resumed.params) == (entry.request.prompt_ids, entry.request.params)
    journal.record(TokenOutput("r", 0, 2, 12, FinishReason.length))
    assert entry.is_complete


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (TokenOutput("r", 0, 0, 1), "1 is next"),
        (TokenOutput("r", 0, 2, 1), "1 is next"),
        (TokenOutput("r", 0, -1, 1), "1 is next"),
        (TokenOutput("r", 1, 1, 1), "after its last"),
        (TokenOutput("r", 2, 0, 1), "2 choices"),
        (TokenOutput("r", -1, 0, 1), "2 choices"),
        (TokenOutput("other", 0, 0, 1), "never sent"),
    ],
)
def test_anything_else_is_a_violation_and_changes_nothing(token, message):
    journal = Journal()
    entry = add(journal, request(n=2))
    journal.record(TokenOutput("r", 0, 0, 5))
    journal.record(TokenOutput("r", 1, 0, 6, FinishReason.stop))
    before = entry.to_request()
    with pytest.raises(ProtocolViolation, match=message):
        journal.record(token)
    assert entry.to_request() == before


def test_tokens_of_what_the_client_closed_are_ignored():
    journal = Journal()
    entry = add(journal, request("choice", n=2))
    entry.finished.add(1)
    entry.stopped.add(1)
    assert journal.record(TokenOutput("choice", 1, 0, 5)) is None
    assert entry.generated[1] == []
    add(journal, request("whole"))
    journal.close("whole", by_engine=False)
    assert journal.record(TokenOutput("whole", 0, 0, 5)) is None


def test_a_request_that_the_engine_ended_gets_nothing_more():
    journal = Journal()
    add(journal, request())
    journal.close("r", by_engine=True)
    with pytest.raises(ProtocolViolation):
        journal.record(TokenOutput("r", 0, 0, 5))


def test_a_token_for_a_request_that_no_engine_has_is_a_violation():
    journal = Journal()
    entry = add(journal, request())
    assert journal.engine_died(32) == [entry]
    assert journal.engine_died(32) == []
    with pytest.raises(ProtocolViolation):
        journal.record(TokenOutput("r", 0, 0, 5))


def test_ids_must_be_unique_while_anything_may_come_for_them():
    journal = Journal()
    add(journal, request())
    with pytest.raises(InvalidRequest, match="unique"):
        add(journal, request())
    journal.close("r", by_engine=False)
    with pytest.raises(InvalidRequest, match="unique"):
        add(journal, request())
    journal.engine_died(32)
    add(journal, request())
    journal.close("r", by_engine=True)
    add(journal, request())


def test_arrival_order_and_bounded_memory():
    journal = Journal()
    for i in range(MAX_RECENTLY_CLOSED + 10):
        add(journal, request(f"c{i}"))
        journal.close(f"c{i}", by_engine=False)
    assert len(journal._recently_closed) == MAX_RECENTLY_CLOSED
    for name in ("b", "a", "c"):
        add(journal, request(name))
    journal.close("a", by_engine=True)
    assert [entry.request.request_id for entry in journal.live()] == ["b", "c"]


def test_deaths_are_counted_until_the_next_token():
    journal = Journal()
    entry = add(journal, request())
    for _ in range(3):
        journal.engine_died(32)
        entry.in_engine = True
    assert (entry.n_crashes, entry.n_restarts) == (3, 3)
    journal.record(TokenOutput("r", 0, 0, 5))
    assert (entry.n_crashes, entry.n_restarts) == (0, 3)


def test_deaths_are_not_counted_against_requests_that_only_waited():
    journal = Journal()
    entries = [add(journal, request(name, n=2)) for name in "abcd"]
    entries[0].finished.add(1)
    assert journal.engine_died(4) == entries
    assert [entry.n_crashes for entry in entries] == [1, 1, 1, 0]
    assert [entry.n_restarts for entry in entries] == [1, 1, 1, 1]


def test_a_request_may_arrive_with_tokens():
    journal = Journal()
    entry = add(journal, request(n=2, generated=((7, 8), (9,)), finished=(1,)))
    journal.record(TokenOutput("r", 0, 2, 10, FinishReason.stop))
    assert entry.is_complete
