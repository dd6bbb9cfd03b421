"""A token depends on weights, prompt, parameters, seed and position, and on nothing else.

Every test compares token ids and log-probabilities with `==`: the answer that a request gets under
some circumstance, against what it gets alone in an engine that reads its prompt in one piece.
"""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocmforge.backends.cpu import CpuBackend
from tests.support.gguf_files import write_tiny_model
from tests.support.tiny_engine import (
    N_VOCAB,
    Collected,
    LoadedTinyModel,
    answer_alone,
    assert_idle,
    drain,
    hash_engine,
    request,
)

# Examples of each property on each model: the hash model is quick and sees every mistake in blocks,
# positions and noise; the real ones show that no kernel looks at its neighbours.
N_EXAMPLES = {"hash": 25, "F32": 4, "Q8_0": 4, "Q4_K": 4}


def run_property(holds, kind, make_engine):
    """Check `holds(make_engine, rng)` for many random generators; a failure names its seed."""

    @settings(max_examples=N_EXAMPLES[kind], deadline=None)
    @given(st.integers(0, 2**32))
    def check(seed):
        holds(make_engine, random.Random(seed))

    check()


@pytest.fixture(scope="module", params=list(N_EXAMPLES))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def make_engine(kind, tmp_path_factory):
    if kind == "hash":
        yield hash_engine
        return
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path, n_embd=256, n_ff=256, n_ctx=256, type=kind)
    backend = CpuBackend(n_threads=2)
    yield LoadedTinyModel(path, backend).engine
    backend.close()


def cold(make_engine):
    """The undisturbed engine: no neighbours, one chunk, no prefix cache, plenty of blocks."""
    return lambda: make_engine(prefix_cache=False, step_tokens=512, n_blocks=64)


def random_request(rng, request_id, *, prefix=(), **fields):
    """Any sampling, any length; `prefix` makes prompts that begin alike."""
    prompt = [*prefix, *(rng.randrange(N_VOCAB) for _ in range(rng.randint(1, 60)))]
    drawn = {
        "max_tokens": rng.randint(1, 24),
        "temperature": rng.choice([0.0, 0.7, 1.0, 1.5]),
        "top_k": rng.choice([0, 1, 5]),
        "top_p": rng.choice([1.0, 0.8]),
        "min_p": rng.choice([0.0, 0.05]),
        "repetition_penalty": rng.choice([1.0, 1.2]),
        "presence_penalty": rng.choice([0.0, 0.5]),
        "frequency_penalty": rng.choice([0.0, 0.3]),
        "logit_bias": rng.choice([{}, {3: 2.0, 5: -1.5}]),
        "logprobs": rng.choice([None, 0, 3]),
        "seed": rng.randrange(2**63),
        "n": rng.choice([1, 1, 1, 2, 3]),
        "min_tokens": rng.choice([0, 4]),
        "eog_ids": (0, 1),
    }
    return request(request_id, prompt=prompt, **(drawn | fields))


def assert_same(collected, make_engine, wanted):
    alone = answer_alone(cold(make_engine), wanted)
    got = [collected.answers[wanted.request_id, c] for c in range(wanted.params.n)]
    assert got == alone


def among_sixteen_neighbours(make_engine, rng):
    engine, _ = make_engine(batch=17, step_tokens=rng.choice([17, 40, 200]), n_blocks=400)
    requests = [random_request(rng, str(i)) for i in range(17)]
    collected = Collected()
    for one in requests:
        engine.submit(one)
        for _ in range(rng.randint(0, 2)):
            collected.take(engine.step())
    drain(engine, collected)
    for one in rng.sample(requests, 4):
        assert_same(collected, make_engine, one)


def however_the_prompt_is_cut(make_engine, rng):
    one = random_request(rng, "one", n=1)
    engine, _ = make_engine(batch=1, step_tokens=rng.randint(1, 64))
    engine.submit(one)
    assert_same(drain(engine), make_engine, one)


def on_a_prefix_hit(make_engine, rng):
    prefix = [rng.randrange(N_VOCAB) for _ in range(rng.randint(8, 50))]
    engine, _ = make_engine()
    for i in range(4):
        one = random_request(rng, str(i), prefix=prefix, n=1)
        engine.submit(one)
        collected = drain(engine)
        assert (collected.started[str(i)] > 0) == (i > 0)
        assert_same(collected, make_engine, one)


def when_preempted(make_engine, rng):
    requests = [random_request(rng, str(i), max_tokens=24, min_tokens=24, n=1) for i in range(6)]
    # Half of what they need in the end.
    need = [(len(r.prompt_ids) + 24) // 8 + 1 for r in requests]
    engine, _ = make_engine(n_blocks=max(*need, sum(need) // 2), prefix_cache=rng.random() < 0.7)
    for one in requests:
        engine.submit(one)
    collected = drain(engine)
    for one in requests:
        assert_same(collected, make_engine, one)


def test_the_crowd_above_really_is_preempted():
    rng = random.Random(0)
    engine, _ = hash_engine(n_blocks=30)
    for i in range(6):
        engine.submit(
            random_request(rng, str(i), prefix=range(40), max_tokens=40, min_tokens=40, n=1)
        )
    drain(engine)
    assert engine.stats().preemptions_total > 0


def when_resumed_anywhere(make_engine, rng):
    whole = random_request(rng, "one", min_tokens=8)
    answers = answer_alone(cold(make_engine), whole)
    cuts = [rng.randint(0, len(a.token_ids)) for a in answers]
    finished = tuple(c for c, a in enumerate(answers) if cuts[c] == len(a.token_ids))
    if len(finished) == len(answers):
        return
    resumed = request_at(whole, answers, cuts, finished)
    engine, _ = make_engine(step_tokens=rng.choice([16, 64]))
    engine.submit(random_request(rng, "neighbour"))
    engine.submit(resumed)
    collected = Collected()
    collected.resume(resumed)
    drain(engine, collected)
    for choice, answer in enumerate(answers):
        got = collected.answers["one", choice]
        assert got.token_ids == answer.token_ids
        assert got.logprobs[cuts[choice] :] == answer.logprobs[cuts[choice] :]
        if choice not in finished:
            assert got.finish_reason == answer.finish_reason


def request_at(whole, answers, cuts, finished):
    """`whole` as process A sends it again after a restart."""
    generated = tuple(tuple(a.token_ids[:cut]) for a, cut in zip(answers, cuts, strict=True))
    return msgspec.structs.replace(whole, generated=generated, finished=finished)


def each_of_several_choices_as_if_it_were_alone(make_engine, rng):
    several = random_request(rng, "one", n=4)
    engine, _ = make_engine(prefix_cache=rng.random() < 0.5, step_tokens=rng.choice([16, 64]))
    engine.submit(several)
    together = drain(engine)
    for choice in range(4):
        others = tuple(c for c in range(4) if c != choice)
        engine, _ = cold(make_engine)()
        engine.submit(request_at(several, [], [], others))
        alone = drain(engine)
        assert together.answers["one", choice] == alone.answers["one", choice]


def through_everything_at_once(make_engine, rng):
    """Few blocks, odd budgets, shared beginnings, late arrivals, cancels, and a restart."""
    shape = {
        "n_blocks": rng.randint(14, 40),
        "batch": rng.randint(1, 12),
        "step_tokens": rng.randint(12, 80),
        "prefix_cache": rng.random() < 0.8,
        "block_tokens": rng.choice([8, 16]),
    }
    prefix = [rng.randrange(N_VOCAB) for _ in range(20)]
    requests = [
        random_request(rng, str(i), prefix=rng.choice([(), prefix, prefix[:9]])) for i in range(12)
    ]
    engine, _ = make_engine(**shape)
    collected, gone = Collected(), set()
    for one in requests:
        engine.submit(one)
        for _ in range(rng.randint(0, 3)):
            collected.take(engine.step())
        if rng.random() < 0.2:
            gone.add(victim := rng.choice(requests).request_id)
            engine.cancel(victim)
    engine.check()
    engine, _ = make_engine(**shape)
    survivors = [r for r in requests if r.request_id not in gone]
    for one in survivors:
        resume(engine, collected, one)
    drain(engine, collected)
    assert_idle(engine)
    for one in survivors:
        assert_same(collected, make_engine, one)


def resume(engine, collected, one):
    """Submit `one` to a fresh engine with what `collected` has of it, as process A would."""
    keys = [(one.request_id, c) for c in range(one.params.n)]
    answers = [collected.answers.get(key) for key in keys]
    finished = tuple(c for c, a in enumerate(answers) if a and a.finish_reason)
    collected.started.pop(one.request_id, None)
    if len(finished) < len(answers):
        generated = tuple(tuple(a.token_ids) if a else () for a in answers)
        engine.submit(msgspec.structs.replace(one, generated=generated, finished=finished))


@pytest.mark.parametrize(
    "holds",
    [
        among_sixteen_neighbours,
        however_the_prompt_is_cut,
        on_a_prefix_hit,
        when_preempted,
        when_resumed_anywhere,
        each_of_several_choices_as_if_it_were_alone,
        through_everything_at_once,
    ],
    ids=lambda holds: holds.__name__,
)
def test_same_answer(holds, kind, make_engine):
    run_property(holds, kind, make_engine)
