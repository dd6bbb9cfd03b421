"""The engine on a model whose logits betray every mistake in blocks and positions."""

from __future__ import annotations

import pytest

from rocmforge.errors import (
    ContextLengthExceeded,
    InferenceFailed,
    InvalidRequest,
    QueueCapacityExceeded,
    ZeroProbabilities,
)
from rocmforge.request import FinishReason, RequestState
from tests.support.tiny_engine import (
    N_VOCAB,
    Collected,
    answer_alone,
    assert_idle,
    drain,
    hash_engine,
    request,
)


def test_answers_end_with_their_reason_and_usage_facts():
    engine, _ = hash_engine()
    engine.submit(request("a", prompt=range(20), max_tokens=5))
    collected = drain(engine)
    answer = collected.answers["a", 0]
    assert len(answer.token_ids) == 5
    assert answer.finish_reason is FinishReason.length
    assert collected.started == {"a": 0}
    stats = engine.stats()
    assert stats.prompt_tokens_total == 20
    assert stats.generated_tokens_total == 5
    assert stats.steps_total == 5
    assert stats.blocks_total == 200
    assert stats.blocks_cached == 3  # 24 positions computed: the last token is never run


def test_stop_tokens_end_an_answer_and_eos_can_be_ignored():
    def answer(**fields):
        return answer_alone(hash_engine, request(prompt=range(9), **fields))[0]

    free = answer(temperature=0.0).token_ids
    cut = next(i for i in range(1, 12) if free[i] not in free[:i])
    ended = answer(temperature=0.0, eog_ids=(free[cut],))
    assert ended.token_ids == free[: cut + 1]
    assert ended.finish_reason is FinishReason.stop
    by_id = answer(temperature=0.0, stop_token_ids=(free[cut],))
    assert by_id.token_ids == free[: cut + 1]
    ignored = answer(temperature=0.0, eog_ids=(free[cut],), ignore_eos=True)
    assert ignored.token_ids == free
    later = answer(temperature=0.0, eog_ids=(free[cut],), min_tokens=cut + 3)
    assert len(later.token_ids) >= cut + 3
    assert free[cut] not in later.token_ids[: cut + 2]


def test_without_max_tokens_the_context_is_the_end():
    engine, _ = hash_engine(n_ctx=32)
    engine.submit(request(prompt=range(20), max_tokens=None))
    answer = drain(engine).answers["r", 0]
    assert len(answer.token_ids) == 12
    assert answer.finish_reason is FinishReason.length


def test_a_cache_smaller_than_the_context_is_the_end_too():
    engine, _ = hash_engine(n_ctx=256, n_blocks=3)
    engine.submit(request(prompt=range(20), max_tokens=None))
    answer = drain(engine).answers["r", 0]
    assert len(answer.token_ids) == 4
    with pytest.raises(ContextLengthExceeded, match=r"24 tokens.*context holds 24"):
        engine.submit(request(prompt=range(24)))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ()}, "prompt"),
        ({"prompt": (1, N_VOCAB)}, "prompt"),
        ({"prompt": (-1,)}, "prompt"),
        ({"n": 2, "generated": ((1,),)}, "generated"),
        ({"generated": ((N_VOCAB,),)}, "generated"),
        ({"generated": ((1, 2),), "max_tokens": 2}, "generated"),
        ({"finished": (1,)}, "finished"),
        ({"finished": (0,)}, "finished"),
    ],
)
def test_impossible_requests_are_refused_by_field(fields, param):
    engine, _ = hash_engine()
    with pytest.raises(InvalidRequest) as caught:
        engine.submit(request(**fields))
    assert caught.value.param == param
    assert not engine.has_work


def test_a_prompt_that_fills_the_context_is_refused_with_both_lengths():
    engine, _ = hash_engine(n_ctx=16)
    with pytest.raises(ContextLengthExceeded, match="context_length_exceeded") as caught:
        engine.submit(request(prompt=range(16)))
    assert (caught.value.n_prompt_tokens, caught.value.n_ctx) == (16, 16)
    engine.submit(request(prompt=range(15)))
    assert len(drain(engine).answers["r", 0].token_ids) == 1
    with pytest.raises(ContextLengthExceeded):
        engine.submit(request(prompt=range(10), generated=(tuple(range(6)),)))


def test_request_ids_are_unique_while_they_live():
    engine, _ = hash_engine()
    engine.submit(request())
    with pytest.raises(InvalidRequest, match="in use"):
        engine.submit(request())
    drain(engine)
    engine.submit(request())
    drain(engine)


def test_the_queue_is_bounded():
    engine, _ = hash_engine(batch=2, queue=3)
    for i in range(5):
        engine.submit(request(str(i)))
    with pytest.raises(QueueCapacityExceeded, match="max_queue = 3"):
        engine.submit(request("5"))
    engine.cancel("0")
    with pytest.raises(QueueCapacityExceeded):
        engine.submit(request("5", n=2))
    engine.submit(request("5"))
    assert len(drain(engine).answers) == 5


def test_first_come_first_served():
    engine, _ = hash_engine(batch=2, step_tokens=8)
    for i in range(6):
        engine.submit(request(str(i), prompt=range(i, 30 + i), max_tokens=3))
    assert list(drain(engine).started) == [str(i) for i in range(6)]


def test_decoding_goes_on_while_a_long_prompt_is_read():
    engine, model = hash_engine(step_tokens=16, n_ctx=200)
    engine.submit(request("short", max_tokens=30))
    collected = Collected()
    collected.take(engine.step())
    engine.submit(request("long", prompt=[i % N_VOCAB for i in range(150)], max_tokens=2))
    for n_tokens in range(2, 12):
        collected.take(engine.step())
        assert len(collected.answers["short", 0].token_ids) == n_tokens
    assert ("long", 0) in collected.answers
    assert max(plan.n_tokens for plan in model.plans) <= 16
    drain(engine, collected)


def test_steps_shrink_to_stay_below_their_time():
    now = [0.0]
    engine, model = hash_engine(clock=lambda: now[0], step_tokens=512, n_ctx=1200)

    def take_time(plan):
        now[0] += plan.n_tokens * 0.004  # 250 tokens per second

    model.before_run = take_time
    engine.submit(request(prompt=[i % N_VOCAB for i in range(1000)], max_tokens=2))
    while engine.has_work:
        engine.step()
        assert engine.stats().last_step_ms <= 500.0
    assert max(plan.n_tokens for plan in model.plans) == 100


def test_logits_that_are_not_finite_fail_only_their_request():
    engine, model = hash_engine()
    model.poisoned_token = 60
    engine.submit(request("good", prompt=range(9)))
    engine.submit(request("bad", prompt=[1, 2, 60], n=3))
    engine.submit(request("fine", prompt=range(8)))
    collected = drain(engine)
    assert isinstance(collected.errors["bad"], InferenceFailed)
    assert [key for key in collected.answers if key[0] == "bad"] == []
    assert collected.answers["good", 0] == answer_alone(hash_engine, request("g", range(9)))[0]
    assert collected.answers["fine", 0] == answer_alone(hash_engine, request("f", range(8)))[0]


def test_a_request_without_an_allowed_token_fails_alone():
    engine, _ = hash_engine()
    engine.submit(request("none", eog_ids=tuple(range(N_VOCAB)), min_tokens=1))
    engine.submit(request("good"))
    collected = drain(engine)
    assert isinstance(collected.errors["none"], ZeroProbabilities)
    assert len(collected.answers["good", 0].token_ids) == 12


def test_a_failing_step_commits_nothing_and_can_be_run_again():
    engine, model = hash_engine()
    engine.submit(request(prompt=range(20)))
    collected = Collected()
    collected.take(engine.step())

    def fail(plan):
        raise InferenceFailed("the device said no")

    model.before_run = fail
    for _ in range(3):
        with pytest.raises(InferenceFailed):
            engine.step()
        engine.check()
    model.before_run = None
    drain(engine, collected)
    assert collected.answers["r", 0] == answer_alone(hash_engine, request(prompt=range(20)))[0]


class TestChoices:
    def test_choices_share_the_prompt(self):
        engine, _ = hash_engine()
        engine.submit(request(prompt=range(40), n=4))
        collected = drain(engine)
        answers = [collected.answers["r", c] for c in range(4)]
        assert len({tuple(a.token_ids) for a in answers}) == 4
        # 40 tokens once, and for each other choice what is behind the last full block of 8
        # (the last token is always computed).
        assert engine.stats().prompt_tokens_total == 40 + 3 * 8

    def test_without_prefix_cache_they_read_it_themselves(self):
        engine, _ = hash_engine(prefix_cache=False)
        engine.submit(request(prompt=range(40), n=4))
        collected = drain(engine)
        assert engine.stats().prompt_tokens_total == 160
        shared = answer_alone(hash_engine, request(prompt=range(40), n=4))
        assert [collected.answers["r", c] for c in range(4)] == shared

    def test_more_choices_than_places(self):
        engine, _ = hash_engine(batch=3)
        engine.submit(request(prompt=range(20), n=8))
        assert len(drain(engine).answers) == 8

    def test_a_cancelled_leader_does_not_hold_up_the_others(self):
        engine, _ = hash_engine(step_tokens=16)
        engine.submit(request(prompt=range(40), n=3))
        collected = Collected()
        collected.take(engine.step())
        assert engine.stats().n_waiting == 2
        assert engine.cancel("r", 0)
        drain(engine, collected)
        assert set(collected.answers) == {("r", 1), ("r", 2)}

    def test_others_are_not_held_up_by_waiting_choices(self):
        engine, _ = hash_engine(step_tokens=16)
        engine.submit(request("many", prompt=range(14), n=3))
        engine.submit(request("other", prompt=range(20, 24), max_tokens=2))
        collected = Collected()
        collected.take(engine.step())
        assert set(collected.started) == {"many", "other"}
        drain(engine, collected)


class TestPrefixCache:
    def test_a_second_turn_skips_what_is_known(self):
        engine, _ = hash_engine()
        engine.submit(request("one", prompt=range(30), max_tokens=20))
        first = drain(engine).answers["one", 0].token_ids
        engine.submit(request("two", prompt=[*range(30), *first, 5, 6], max_tokens=4))
        collected = drain(engine)
        assert collected.started["two"] == 48
        stats = engine.stats()
        assert (stats.prefix_queries_total, stats.prefix_hits_total) == (2, 1)
        assert stats.prefix_hit_tokens_total == 48
        cold = answer_alone(hash_engine, request("c", [*range(30), *first, 5, 6], max_tokens=4))
        assert collected.answers["two", 0] == cold[0]

    def test_a_full_hit_still_computes_the_last_token(self):
        engine, _ = hash_engine()
        for name in ("one", "two"):
            engine.submit(request(name, prompt=range(32)))
            collected = drain(engine)
        assert collected.started["two"] == 24
        assert (
            collected.answers["two", 0] == answer_alone(hash_engine, request(prompt=range(32)))[0]
        )

    def test_off_means_off(self):
        engine, _ = hash_engine(prefix_cache=False)
        for name in ("one", "two"):
            engine.submit(request(name, prompt=range(32)))
            collected = drain(engine)
        assert collected.started["two"] == 0
        stats = engine.stats()
        assert (stats.blocks_cached, stats.prefix_queries_total) == (0, 0)

    def test_old_prefixes_make_room(self):
        engine, _ = hash_engine(n_blocks=12)
        for i in range(20):
            engine.submit(request(str(i), prompt=range(i, i + 40)))
            drain(engine)
        assert engine.stats().preemptions_total == 0


class TestPreemption:
    def crowd(self, engine, n=6):
        for i in range(n):
            engine.submit(request(str(i), prompt=range(i, i + 15), max_tokens=40))

    def test_when_blocks_run_out_the_youngest_waits_and_nothing_changes(self):
        engine, _ = hash_engine(n_blocks=20)
        self.crowd(engine)
        collected = drain(engine)
        assert engine.stats().preemptions_total > 0
        for i in range(6):
            alone = answer_alone(hash_engine, request("x", prompt=range(i, i + 15), max_tokens=40))
            assert collected.answers[str(i), 0] == alone[0]

    def test_the_oldest_is_never_preempted(self):
        engine, _ = hash_engine(n_blocks=8)
        self.crowd(engine)
        oldest = engine._scheduler.waiting[0]
        n_computed = 0
        while oldest.is_alive:
            engine.step()
            assert oldest.num_computed_tokens > n_computed or not oldest.is_alive
            n_computed = oldest.num_computed_tokens
        while engine.has_work:
            engine.step()
        assert_idle(engine)

    def test_one_sequence_may_have_the_whole_cache(self):
        engine, _ = hash_engine(n_blocks=8, n_ctx=64)
        self.crowd(engine, n=3)
        engine.submit(request("big", prompt=range(50), max_tokens=14))
        collected = drain(engine)
        assert len(collected.answers["big", 0].token_ids) == 14

    def test_choices_of_a_preempted_leader(self):
        engine, _ = hash_engine(n_blocks=9, step_tokens=16)
        engine.submit(request("old", prompt=range(10), max_tokens=50))
        engine.submit(request("new", prompt=range(20, 45), n=3, max_tokens=20))
        collected = drain(engine)
        assert engine.stats().preemptions_total > 0
        alone = answer_alone(hash_engine, request("x", range(20, 45), n=3, max_tokens=20))
        assert [collected.answers["new", c] for c in range(3)] == alone


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
