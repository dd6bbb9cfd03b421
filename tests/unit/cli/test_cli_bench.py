"""`rocmforge bench`: what it measures, and that it says so."""

from __future__ import annotations

import json

import pytest

from rocmforge.backends.select import available_isas
from rocmforge.cli import speed
from rocmforge.config import CacheConfig, EngineConfig, SchedulerConfig
from rocmforge.errors import CacheCapacityExceeded, InvalidConfiguration
from rocmforge.wire.protocol import EngineFacts
from tests.support.tiny_engine import hash_engine

KEYS = {
    "batch",
    "n_prompt",
    "n_gen",
    "prompt_tokens_per_second",
    "generation_tokens_per_second",
    "generation_ms_per_step",
    "time_to_first_token_ms",
}


def test_json(invoke, tiny_path):
    args = ("-p", "40", "-n", "5", "--threads", "2", "--batch", "1,3", "--repetitions", "2")
    report = json.loads(invoke("bench", tiny_path, *args, "--json").stdout)
    assert report["model"] == "tiny.gguf"
    assert (report["backend"], report["threads"], report["repetitions"]) == ("cpu", 2, 2)
    assert report["isa"] in available_isas()
    assert [result["batch"] for result in report["results"]] == [1, 3]
    for result in report["results"]:
        assert result.keys() == KEYS
        assert (result["n_prompt"], result["n_gen"]) == (40, 5)
        assert all(value > 0 for value in result.values())
        n_tokens = result["batch"] * 1000 / result["generation_ms_per_step"]
        assert result["generation_tokens_per_second"] == pytest.approx(n_tokens)


def test_table(invoke, tiny_path):
    result = invoke("bench", tiny_path, "-p", "20", "-n", "3", "--isa", "scalar", "-t", "1")
    assert "tiny.gguf (llama) on cpu scalar, 1 threads" in result.stdout
    assert "generation t/s" in result.stdout


def test_bad_input_is_refused(invoke, tiny_path):
    for args, message in (
        (("--batch", "1,x"), "--batch"),
        (("--batch", "0"), "--batch"),
        (("-n", "0"), "-n must be positive"),
        (("--repetitions", "0"), "--repetitions"),
        (("-p", "400"), "384"),
    ):
        with pytest.raises(InvalidConfiguration, match=message):
            invoke("bench", tiny_path, *args)


def test_a_cache_that_is_too_small_is_said(invoke, tiny_path, monkeypatch):
    monkeypatch.setenv("ROCMFORGE_CACHE_KV_BYTES", "40000")
    with pytest.raises(CacheCapacityExceeded, match="does not hold the batch"):
        invoke("bench", tiny_path, "-p", "40", "-n", "4", "--batch", "8")


def test_the_settings_make_room_for_what_is_measured():
    scheduling = SchedulerConfig(max_batch_size=3, max_step_tokens=8)
    cache = CacheConfig(prefix_cache=False, kv_type="f32")
    user = EngineConfig(n_threads=2, cache=cache, scheduler=scheduling)
    config = speed.bench_config(user, 100, 20, 16)
    assert config.cache == CacheConfig(prefix_cache=True, kv_type="f32")
    assert config.scheduler.max_batch_size == 16
    assert config.scheduler.max_step_tokens == 32
    assert config.max_sequence_length > 120
    assert config.n_threads == 2


class Watched:
    """A fake model whose engine tells the time in steps, 10 s for prompts and 1 s for decoding."""

    def __init__(self, batch, monkeypatch):
        self.now_s = 0.0
        self.plans = []
        self.engine, model = hash_engine(
            n_blocks=1000, n_ctx=500, batch=batch, step_tokens=2 * batch + 64, block_tokens=16
        )
        model.before_run = self.note
        monkeypatch.setattr(speed, "monotonic_s", lambda: self.now_s)
        self.facts = facts(model)

    def note(self, plan):
        self.plans.append(plan)
        self.now_s += 10.0 if plan.n_tokens > plan.n_sequences else 1.0


def facts(model):
    known = {
        "n_vocab": model.limits.n_vocab,
        "n_ctx": model.limits.n_ctx,
        "n_blocks": model.limits.n_blocks,
        "block_tokens": model.block_tokens,
    }
    empty = {str: "", int: 0, bool: False, float: 0.0}
    hints = EngineFacts.__annotations__
    filled = {name: empty.get(eval(kind), {}) for name, kind in hints.items()}
    return EngineFacts(**(filled | known))


@pytest.mark.parametrize("batch", [1, 4, 30])
def test_prompts_are_computed_and_decoding_is_decoding_only(batch, monkeypatch):
    watched = Watched(batch, monkeypatch)
    result = speed.measure(watched.engine, watched.facts, 50, 7, batch, repetitions=3)
    # Seven steps of a second each, however long the prompts took.
    assert result.generation_ms_per_step == 1000
    assert result.generation_tokens_per_second == batch
    n_prompt_steps = -(-50 * batch // (2 * batch + 64))
    assert result.time_to_first_token_ms >= n_prompt_steps * 10_000
    # No prompt of a timed run comes from the cache: each is computed in full three times.
    n_computed = sum(p.n_tokens for p in watched.plans if p.n_tokens > p.n_sequences)
    assert n_computed >= 3 * 50 * batch
    assert not watched.engine.has_work


def test_the_median_counts(monkeypatch):
    times = iter([(9.0, 9.0), (1.0, 2.0), (5.0, 8.0), (2.0, 4.0)])
    monkeypatch.setattr(speed, "_run", lambda *_: next(times))
    watched = Watched(1, monkeypatch)
    result = speed.measure(watched.engine, watched.facts, 10, 4, 1, repetitions=3)
    # The first run warms up; of the others, 2 s and 4 s are the medians.
    assert (result.prompt_tokens_per_second, result.generation_tokens_per_second) == (5.0, 1.0)
