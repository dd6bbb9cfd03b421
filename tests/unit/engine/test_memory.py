"""Sizes of the KV cache and of sequences."""

from __future__ import annotations

import pytest

from rocmforge.config import CacheConfig, EngineConfig, SchedulerConfig
from rocmforge.engine import memory
from rocmforge.engine.memory import cache_blocks, sequence_length
from rocmforge.errors import CacheCapacityExceeded, InvalidCacheConfiguration


def config(kv_bytes=None, batch=4, **fields):
    return EngineConfig(
        cache=CacheConfig(kv_bytes=kv_bytes),
        scheduler=SchedulerConfig(max_batch_size=batch),
        **fields,
    )


@pytest.mark.parametrize(
    ("configured", "trained", "expected"),
    [(None, 32768, 4096), (None, 2048, 2048), (512, 2048, 512), (9000, 2048, 2048)],
)
def test_sequence_length(configured, trained, expected):
    assert sequence_length(config(max_sequence_length=configured), trained) == expected


def test_blocks_that_kv_bytes_pays_for():
    assert cache_blocks(config(kv_bytes=10_999), n_ctx=1000, block_bytes=1000) == 10


def test_never_more_than_all_sequences_can_use():
    assert cache_blocks(config(kv_bytes=10**9), n_ctx=100, block_bytes=1000) == 4 * 7


def test_less_than_a_block_is_refused_with_what_is_needed():
    with pytest.raises(InvalidCacheConfiguration, match="full sequence of 100 needs 7000"):
        cache_blocks(config(kv_bytes=999), n_ctx=100, block_bytes=1000)


def test_a_quarter_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 40_000)
    assert cache_blocks(config(), n_ctx=1000, block_bytes=1000) == 10
    assert cache_blocks(config(), n_ctx=16, block_bytes=1000) == 4
    with pytest.raises(CacheCapacityExceeded, match="free memory"):
        cache_blocks(config(), n_ctx=16, block_bytes=10_001)


@pytest.mark.parametrize("free", [30_000, 300_000, 3_000_000])
def test_sizes_taken_over_from_a_first_life_give_the_same_cache(monkeypatch, free):
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    n_blocks = cache_blocks(config(), n_ctx=1000, block_bytes=1000)
    n_ctx = min(1000, n_blocks * 16)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1)
    later = config(kv_bytes=n_blocks * 1000, max_sequence_length=n_ctx)
    assert sequence_length(later, 4096) == n_ctx
    assert cache_blocks(later, n_ctx=n_ctx, block_bytes=1000) == n_blocks
