"""Time without a change, and time that does not count."""

from __future__ import annotations

import pytest

from rocmforge.supervisor import beat_watch
from rocmforge.supervisor.beat_watch import BeatWatch
from rocmforge.wire.beat import BeatPage


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(beat_watch, "monotonic_s", lambda: now[0])
    return now


@pytest.fixture
def page():
    page = BeatPage.create()
    yield page
    page.close()


def test_time_adds_up_until_something_moves(clock, page):
    watch = BeatWatch(page, max_look_s=2.0)
    for expected in (1.0, 2.0, 3.0):
        clock[0] += 1.0
        assert watch.look() == pytest.approx(expected)
    page.op_counter[0] += 1
    clock[0] += 1.0
    assert watch.look() == 0.0
    clock[0] += 1.0
    assert watch.look() == pytest.approx(1.0)


def test_looking_often_changes_nothing(clock, page):
    watch = BeatWatch(page, max_look_s=2.0)
    for _ in range(100):
        clock[0] += 0.01
        watch.look()
    assert watch.look() == pytest.approx(1.0)


def test_a_gap_in_which_nobody_looked_hardly_counts(clock, page):
    """The server was stopped or the machine suspended for an hour: the engine most likely too."""
    watch = BeatWatch(page, max_look_s=2.0)
    clock[0] += 3600.0
    assert watch.look() == pytest.approx(2.0)


def test_another_sign_of_life_starts_anew(clock, page):
    watch = BeatWatch(page, max_look_s=2.0)
    clock[0] += 1.5
    watch.reset()
    clock[0] += 0.5
    assert watch.look() == pytest.approx(0.5)
