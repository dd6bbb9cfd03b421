"""The engine on a model whose logits betray every mistake in blocks and positions."""

from __future__ import annotations

import pytest

from rocmforge.errors import (
    BatchSizeExceeded,
    ContextLengthExceeded,
    InferenceFailed,
    InvalidRequest,
    QueueCapacityExceeded,
    ZeroProbabilities,
)
from rocmforge.request import FinishReason
from tests.support.tiny_engine import (
    N_VOCAB,
    Collected,
    answer_alone,
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


def test_more_choices_than_ever_fit():
    engine, _ = hash_engine(batch=2, queue=3)
    with pytest.raises(BatchSizeExceeded, match="lower n"):
        engine.submit(request(n=6))
    engine.submit(request(n=5))
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
