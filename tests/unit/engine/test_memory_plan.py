"""What a model takes, refused with numbers before a weight is copied."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rocmforge.backends.cpu import CpuBackend
from rocmforge.config import CacheConfig, EngineConfig, SchedulerConfig
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.engine import start
from rocmforge.engine.machine_memory import AvailableMemory
from rocmforge.engine.memory_plan import kv_geometry, make_plan, step_limits
from rocmforge.errors import InvalidCacheConfiguration, ModelLoadFailed
from rocmforge.gguf.reader import GGUFFile
from rocmforge.models.families import decoder_spec
from rocmforge.models.loading import load_model

CONFIG = EngineConfig(scheduler=SchedulerConfig(max_batch_size=4))


@pytest.fixture(scope="module")
def spec():
    with GGUFFile.open(EMBEDDED_MODEL_PATH) as file:
        return decoder_spec(file.metadata, file.tensors)


def planned(spec, n_bytes, config=CONFIG, *, shared_bytes=0):
    return make_plan(
        config,
        spec,
        weight_bytes=4_000_000,
        workspace_bytes=1_000_000,
        shared_bytes=shared_bytes,
        available=AvailableMemory(n_bytes, "/group/memory.max", 10_000_000_000),
    )


def test_the_cache_takes_a_quarter_of_what_weights_and_workspace_leave(spec):
    plan = planned(spec, 9_000_000)
    block_bytes = kv_geometry(CONFIG, spec, 1).block_bytes
    assert plan.kv_bytes == 1_000_000 // block_bytes * block_bytes
    assert plan.needed_bytes == 5_000_000 + plan.kv_bytes
    plan.check()


def test_a_given_cache_is_never_made_smaller(spec):
    config = replace(CONFIG, cache=CacheConfig(kv_bytes=4_000_000))
    plan = planned(spec, 9_000_000, config)
    block_bytes = kv_geometry(config, spec, 1).block_bytes
    assert plan.kv_bytes == 4_000_000 // block_bytes * block_bytes
    plan.check()
    with pytest.raises(ModelLoadFailed) as caught:
        planned(spec, 8_000_000, config).check()
    assert "--kv-bytes" in caught.value.message
    assert "the limit of 10.00 GB in /group/memory.max" in caught.value.message


def test_a_refusal_says_all_numbers(spec):
    available = AvailableMemory(3_900_000_000, "machine")
    plan = replace(
        planned(spec, 9_000_000),
        weight_bytes=4_100_000_000,
        kv_bytes=800_000_000,
        workspace_bytes=300_000_000,
        available=available,
    )
    with pytest.raises(ModelLoadFailed) as caught:
        plan.check()
    for number in ("needs 5.20 GB", "weights 4.10", "cache 0.80", "workspace 0.30", "3.90 GB are"):
        assert number in caught.value.message


def test_weights_that_do_not_fit_are_refused(spec):
    with pytest.raises(ModelLoadFailed, match=r"weights 0\.00.*0\.00 GB are available"):
        planned(spec, 4_999_999)


def test_no_room_for_one_block_is_refused(spec):
    with pytest.raises(ModelLoadFailed, match="quarter of the free memory"):
        planned(spec, 5_000_001)


def test_a_block_that_kv_bytes_does_not_pay_for(spec):
    with pytest.raises(InvalidCacheConfiguration):
        planned(spec, 9_000_000, replace(CONFIG, cache=CacheConfig(kv_bytes=1)))


def test_weights_in_shared_memory_are_not_counted_twice(spec):
    plan = planned(spec, 3_000_000, shared_bytes=4_000_000)
    assert plan.needed_bytes == 1_000_000 + plan.kv_bytes
    plan.check()


def test_the_backend_takes_what_it_said(monkeypatch):
    backend, told = CpuBackend(1), []
    model = load_model(
        EMBEDDED_MODEL_PATH, backend, before_copy=lambda decoder, n: told.append((decoder, n))
    )
    ((decoder, n_bytes),) = told
    assert model.weight_bytes <= n_bytes <= 1.1 * model.weight_bytes
    limits = step_limits(CONFIG, 256)
    logits_bytes = 4 * limits.max_rows * model.spec.n_vocab
    assert backend.workspace_bytes(decoder.forward, limits) > logits_bytes
    assert backend.workspace_bytes(model.forward, limits) == backend.workspace_bytes(
        decoder.forward, limits
    )
    backend.close()


def test_a_model_that_does_not_fit_is_refused_before_it_is_copied(monkeypatch):
    monkeypatch.setattr(start, "available_memory", lambda: AvailableMemory(1000, "machine"))
    monkeypatch.setattr(CpuBackend, "_load", lambda *_: pytest.fail("a weight was copied"))
    config = replace(CONFIG, model_path=str(EMBEDDED_MODEL_PATH))
    with pytest.raises(ModelLoadFailed, match="machine's free memory"):
        start.load_runner(config)


def test_a_later_life_goes_ahead_with_less_memory_than_planned(monkeypatch):
    monkeypatch.setattr(start, "available_memory", lambda: AvailableMemory(1000, "machine"))
    cache = CacheConfig(kv_bytes=4_000_000)
    config = replace(CONFIG, model_path=str(EMBEDDED_MODEL_PATH), cache=cache)
    runner = start.load_runner(config, is_replacement=True)
    assert runner.kv.n_blocks == 4_000_000 // runner.kv.block_bytes
    runner.close()
