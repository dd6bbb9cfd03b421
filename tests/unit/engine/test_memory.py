"""Sizes of the KV cache and of sequences."""

from __future__ import annotations

import pytest

from rocmforge.config import CacheConfig, EngineConfig, SchedulerConfig
from rocmforge.engine import memory
from rocmforge.engine.memory import available_bytes, cache_blocks, sequence_length
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


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        (None, None, 2048_000),
        ("max", "100", 2048_000),
        ("1000000", "400000", 600_000),
        ("1000000", "1400000", 0),
        ("9000000", "100", 2048_000),
    ],
)
def test_a_container_s_limit_counts(tmp_path, limit, used, expected):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:   8000 kB\nMemAvailable:    2000 kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text(used + "\n")
    assert available_bytes(meminfo, tmp_path) == expected


def test_cached_files_give_way(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable:    2000 kB\n")
    (tmp_path / "memory.max").write_text("1000000")
    (tmp_path / "memory.current").write_text("900000")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 300000\nactive_file 7\n")
    assert available_bytes(meminfo, tmp_path) == 400_000


def test_this_machine_has_memory():
    assert available_bytes() > 0
