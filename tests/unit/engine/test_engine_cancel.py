"""Requests that end early, and those that go on after a restart."""

from __future__ import annotations

import pytest

from rocmforge.request import RequestState
from tests.support.tiny_engine import (
    Collected,
    answer_alone,
    assert_idle,
    drain,
    hash_engine,
    request,
)


class TestCancel:
    def test_unknown_and_ended_requests(self):
        engine, _ = hash_engine()
        assert not engine.cancel("nobody")
        engine.submit(request())
        assert not engine.cancel("r", 1)
        drain(engine)
        assert not engine.cancel("r")

    def test_while_waiting(self):
        engine, model = hash_engine()
        engine.submit(request())
        assert engine.cancel("r")
        assert_idle(engine)
        assert engine.step().tokens == ()
        assert model.plans == []

    def test_in_the_middle_of_the_prompt(self):
        engine, _ = hash_engine(step_tokens=16)
        engine.submit(request(prompt=range(40)))
        engine.step()
        assert engine.stats().blocks_used == 5
        assert engine.cancel("r")
        assert_idle(engine)
        # What was computed stays useful.
        engine.submit(request("again", prompt=range(40)))
        assert drain(engine).started["again"] == 16

    def test_while_decoding_one_choice(self):
        engine, _ = hash_engine()
        engine.submit(request(prompt=range(20), n=3))
        collected = Collected()
        for _ in range(4):
            collected.take(engine.step())
        assert engine.cancel("r", 1)
        n_before = len(collected.answers["r", 1].token_ids)
        drain(engine, collected)
        assert len(collected.answers["r", 1].token_ids) == n_before
        assert collected.answers["r", 1].finish_reason is None
        alone = answer_alone(hash_engine, request(prompt=range(20), n=3))
        for choice in (0, 2):
            assert collected.answers["r", choice] == alone[choice]

    def test_while_preempted(self):
        engine, _ = hash_engine(n_blocks=8)
        for i in range(3):
            engine.submit(request(str(i), prompt=range(i, i + 15), max_tokens=40))
        while engine.stats().preemptions_total == 0:
            engine.step()
        [*_, victim] = [s for s in engine._scheduler.waiting if s.state is RequestState.Processing]
        assert engine.cancel(victim.request.request_id)
        assert victim.state is RequestState.Cancelled
        while engine.has_work:
            output = engine.step()
            assert victim.request.request_id not in [t.request_id for t in output.tokens]
        assert_idle(engine)

    def test_while_its_step_is_running(self):
        engine, model = hash_engine()
        engine.submit(request("gone", prompt=range(20)))
        engine.submit(request("stays", prompt=range(10)))
        model.before_run = lambda plan: engine.cancel("gone")
        collected = Collected()
        collected.take(engine.step())
        model.before_run = None
        assert "gone" not in collected.started
        drain(engine, collected)
        assert set(collected.answers) == {("stays", 0)}

    def test_the_last_choice_ends_the_request(self):
        engine, _ = hash_engine()
        engine.submit(request(n=2))
        engine.step()
        engine.cancel("r", 0)
        engine.cancel("r", 1)
        assert_idle(engine)
        engine.submit(request())
        drain(engine)


class TestResume:
    @pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 11])
    def test_goes_on_where_it_was(self, cut):
        whole = answer_alone(hash_engine, request(prompt=range(13), logprobs=2))[0]
        resumed = request(prompt=range(13), logprobs=2, generated=(tuple(whole.token_ids[:cut]),))
        engine, _ = hash_engine()
        engine.submit(resumed)
        collected = Collected()
        collected.resume(resumed)
        answer = drain(engine, collected).answers["r", 0]
        assert answer.token_ids == whole.token_ids
        assert answer.logprobs[cut:] == whole.logprobs[cut:]
        assert answer.finish_reason is whole.finish_reason

    def test_finished_choices_are_not_run(self):
        whole = answer_alone(hash_engine, request(prompt=range(13), n=3))
        resumed = request(
            prompt=range(13),
            n=3,
            generated=(
                tuple(whole[0].token_ids),
                tuple(whole[1].token_ids[:4]),
                (),
            ),
            finished=(0,),
        )
        engine, _ = hash_engine()
        engine.submit(resumed)
        collected = Collected()
        collected.resume(resumed)
        drain(engine, collected)
        assert collected.answers["r", 0].finish_reason is None
        assert [collected.answers["r", c].token_ids for c in range(3)] == [
            a.token_ids for a in whole
        ]
