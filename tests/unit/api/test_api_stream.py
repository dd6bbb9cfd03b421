"""Streams and batches: the same answer however it is read, and nothing left behind."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest

from rocmforge.api.model_text import ModelText
from rocmforge.api.session import EngineSession
from rocmforge.api.stream import GenerationStream, run_batch
from rocmforge.errors import EmptyLogits, GenerationFailed, InvalidRequest, RocmForgeError
from rocmforge.request import FinishReason, SamplingParams
from tests.support.tiny_engine import hash_engine

WARM = SamplingParams(temperature=0.9, seed=5, max_tokens=40, logprobs=2)
ENDLESS = SamplingParams(seed=1, ignore_eos=True)


def test_a_stream_is_the_result_in_pieces(tiny):
    result = tiny.generate("hello world", WARM)
    stream = tiny.stream("hello world", WARM)
    deltas = list(stream)
    assert "".join(d.text for d in deltas) == result.text
    assert tuple(d.token_id for d in deltas) == result.token_ids
    assert tuple(d.logprob for d in deltas) == result.logprobs
    assert [d.finish_reason for d in deltas] == [None] * (len(deltas) - 1) + [result.finish_reason]
    assert stream.result() == result
    assert result.usage.completion_tokens == len(result.token_ids)
    assert result.usage.prompt_tokens == len(tiny.tokenize("hello world"))


def test_without_a_seed_answers_differ(tiny):
    texts = {tiny.generate("hello", SamplingParams(max_tokens=30)).token_ids for _ in range(4)}
    assert len(texts) > 1


def test_choices_end_on_their_own(tiny):
    params = SamplingParams(n=3, seed=2, max_tokens=25)
    result = tiny.generate("hello", params)
    assert len({choice.token_ids for choice in result.choices}) == 3
    assert result.text == result.choices[0].text
    assert result.usage.completion_tokens == sum(len(c.token_ids) for c in result.choices)
    by_choice = {0: "", 1: "", 2: ""}
    for delta in tiny.stream("hello", params):
        by_choice[delta.choice] += delta.text
    assert [by_choice[i] for i in range(3)] == [c.text for c in result.choices]


def test_a_stop_string_ends_text_and_work(tiny):
    free = SamplingParams(seed=3, max_tokens=200, ignore_eos=True)
    text = tiny.generate("hello", free).text
    # Any three characters that come once, far from the end.
    stop = next(text[i : i + 3] for i in range(20, 60) if text.find(text[i : i + 3]) == i)
    params = SamplingParams(seed=3, max_tokens=200, ignore_eos=True, stop=(stop,))
    result = tiny.generate("hello", params)
    assert result.text == text[: text.index(stop)]
    assert result.finish_reason is FinishReason.stop
    assert result.usage.completion_tokens == len(result.token_ids) < 150
    assert "".join(d.text for d in tiny.stream("hello", params)) == result.text


def test_the_end_token_is_no_text(tiny):
    plain = tiny.generate("hello", SamplingParams(seed=4, max_tokens=9, ignore_eos=True))
    last = plain.token_ids[5]
    params = SamplingParams(seed=4, max_tokens=9, ignore_eos=True, stop_token_ids=(last,))
    result = tiny.generate("hello", params)
    n = plain.token_ids.index(last) + 1
    assert result.token_ids == plain.token_ids[:n]
    assert result.text == tiny.detokenize(plain.token_ids[: n - 1])
    assert result.finish_reason is FinishReason.stop


def test_the_blank_in_front_belongs_to_a_continuation_only(tiny, monkeypatch):
    asked = []
    make = ModelText.detokenizer

    def note(text, stop, *, continuation):
        asked.append(continuation)
        return make(text, stop, continuation=continuation)

    monkeypatch.setattr(ModelText, "detokenizer", note)
    tiny.generate("hello", SamplingParams(max_tokens=1))
    tiny.generate_batch(["hello"], SamplingParams(max_tokens=1))
    tiny.chat([{"role": "user", "content": "hello"}], SamplingParams(max_tokens=1))
    assert asked == [True, True, False]


def test_a_batch_is_each_prompt_alone(tiny):
    prompts = ["hello", [5, 6, 7], "the world on " * 9, *(f"hello {i}" for i in range(40))]
    params = [SamplingParams(seed=i, max_tokens=4 + i % 20, n=1 + i % 3) for i in range(43)]
    together = tiny.generate_batch(prompts, params)
    for prompt, own, result in zip(prompts, params, together, strict=True):
        alone = tiny.generate(prompt, own)
        assert alone.choices == result.choices
        assert alone.usage.completion_tokens == result.usage.completion_tokens


def test_repeated_prompts_come_from_the_prefix_cache(tiny):
    prompt = "on the world in hello " * 8
    first, second = (tiny.generate(prompt, SamplingParams(max_tokens=1)) for _ in range(2))
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens >= 16


def test_streams_read_in_turns_go_on_together(tiny):
    texts = [f"hello {i}" for i in range(3)]
    streams = [tiny.stream(text, WARM) for text in texts]
    read = ["", "", ""]
    while any(not s.has_ended for s in streams):
        for i, stream in enumerate(streams):
            delta = next(stream, None)
            read[i] += delta.text if delta else ""
    for i, stream in enumerate(streams):
        read[i] += "".join(d.text for d in stream)
    assert read == [tiny.generate(text, WARM).text for text in texts]


def test_threads_take_turns(tiny):
    prompts = [f"hello {i}" for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda p: tiny.generate(p, WARM), prompts))
    assert [r.text for r in results] == [tiny.generate(p, WARM).text for p in prompts]


def test_a_result_is_there_when_all_was_read(tiny):
    with tiny.stream("hello", WARM) as stream:
        next(stream)
        with pytest.raises(InvalidRequest, match="not ended"):
            stream.result()
    assert stream.has_ended
    assert next(stream, None) is None
    assert stream.poll() is None


# ---------------------------------------------------------------------- on an engine to look into


class Watched:
    """A session whose engines can be looked into."""

    def __init__(self, **config):
        self.engines, self.models = [], []
        self._config = config
        self.session = EngineSession(self._make)

    def _make(self):
        engine, model = hash_engine(**self._config)
        self.engines.append(engine)
        self.models.append(model)
        return engine

    def stream(self, prompt=(1, 2, 3), params=ENDLESS):
        return self.submit(self.request(prompt, params))

    def request(self, prompt=(1, 2, 3), params=ENDLESS):
        return self.session.request(prompt, params, ())

    def submit(self, request):
        live = self.session.submit(request, [None] * request.params.n)
        return GenerationStream(self.session, live)

    def is_idle(self):
        # What was let go of is cancelled when the session is used the next time.
        self.stream(params=SamplingParams(max_tokens=1)).finish()
        return not self.engines[-1].has_work


def test_who_has_something_to_read_runs_no_step():
    watched = Watched()
    live = watched.session.submit(watched.request(), [None])
    watched.session.step(live)
    assert live.unread
    n_steps = len(watched.models[0].plans)
    watched.session.step(live)
    assert len(watched.models[0].plans) == n_steps


@pytest.mark.parametrize("leave", ["close", "with", "forget", "cycle"])
def test_an_abandoned_stream_frees_its_place(leave):
    watched = Watched()
    stream = watched.stream()
    next(stream)
    if leave == "close":
        stream.close()
    elif leave == "with":
        with stream:
            pass
    elif leave == "forget":
        del stream
    else:
        stream.myself = stream
        del stream
        gc.collect()
    assert watched.is_idle()


def test_a_failed_request_fails_alone():
    watched = Watched()
    watched.models[0].poisoned_token = 40
    good, bad = watched.stream(), watched.stream(prompt=(1, 40))
    next(good)
    with pytest.raises(RocmForgeError) as caught:
        bad.finish()
    assert next(bad, None) is None
    with pytest.raises(type(caught.value)):
        bad.result()
    watched.models[0].poisoned_token = None
    next(good)
    good.close()
    assert watched.is_idle()


def test_a_batch_ends_with_its_first_failure():
    watched = Watched()
    watched.models[0].poisoned_token = 40
    requests = [watched.request(p) for p in ((1, 2), (1, 40), (3, 4))]
    with pytest.raises(RocmForgeError):
        run_batch(requests, watched.submit, 2)
    watched.models[0].poisoned_token = None
    assert watched.is_idle()


def test_a_batch_never_waits_in_the_queue():
    watched = Watched(batch=4, queue=1)
    n_most = 0

    def submit(request):
        nonlocal n_most
        n_most = max(n_most, watched.engines[0].stats().n_running)
        return watched.submit(request)

    params = SamplingParams(max_tokens=6, seed=1, n=2)
    requests = [watched.request((i, 2), params) for i in range(9)]
    results = run_batch(requests, submit, 4)
    assert [len(r.token_ids) for r in results] == [6] * 9
    assert n_most <= 4


def test_ctrl_c_in_a_step_leaves_a_usable_session():
    watched = Watched()
    expected = watched.stream(params=SamplingParams(max_tokens=9, seed=1)).finish()
    stream, other = watched.stream(), watched.stream()
    next(stream)

    def interrupt(_plan):
        raise KeyboardInterrupt

    watched.models[0].before_run = interrupt
    with pytest.raises(KeyboardInterrupt):
        for _ in stream:
            pass
    for lost in (stream, other):
        with pytest.raises(GenerationFailed, match="interrupted"):
            lost.finish()
    assert len(watched.engines) == 2
    again = watched.stream(params=SamplingParams(max_tokens=9, seed=1)).finish()
    assert again.token_ids == expected.token_ids
    assert watched.is_idle()


def test_a_step_that_fails_can_be_run_again():
    watched = Watched()
    params = SamplingParams(max_tokens=9, seed=1)
    expected = watched.stream(params=params).finish()
    stream = watched.stream(params=params)
    first = next(stream)

    def fail(_plan):
        raise EmptyLogits("a fault")

    watched.models[0].before_run = fail
    with pytest.raises(EmptyLogits):
        next(stream)
    watched.models[0].before_run = None
    rest = [first.token_id, *(delta.token_id for delta in stream)]
    assert tuple(rest) == expected.token_ids
