"""The block pool: counts, order of reuse, integrity."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocmforge.cache.block_pool import BlockPool
from rocmforge.errors import CacheCapacityExceeded, InternalError, InvalidCacheConfiguration


def test_allocates_every_block_once_and_then_refuses():
    pool = BlockPool(3, 16)
    blocks = [pool.allocate() for _ in range(3)]
    assert sorted(blocks) == [0, 1, 2]
    with pytest.raises(CacheCapacityExceeded, match=r"cache\.kv_bytes"):
        pool.allocate()
    pool.check([blocks])


def test_a_shared_block_is_free_after_its_last_release():
    pool = BlockPool(2, 16)
    block = pool.allocate()
    pool.retain(block)
    pool.release(block)
    assert pool.n_used == 1
    pool.release(block)
    assert (pool.n_used, pool.n_available) == (0, 2)
    with pytest.raises(InternalError):
        pool.release(block)
    with pytest.raises(InternalError):
        pool.retain(block)
    with pytest.raises(InternalError):
        pool.keep(block)


def test_kept_blocks_are_reused_last_and_oldest_first():
    pool = BlockPool(4, 16)
    forgotten = []
    pool.on_reuse(forgotten.append)
    blocks = [pool.allocate() for _ in range(4)]
    for block in blocks[:3]:
        pool.keep(block)
    for block in (blocks[2], blocks[0], blocks[1], blocks[3]):
        pool.release(block)
    pool.touch(blocks[2])
    assert pool.n_idle == 3
    assert pool.n_available == 4
    assert pool.allocate() == blocks[3]
    assert forgotten == []
    pool.retain(blocks[1])
    assert pool.allocate() == blocks[0]
    assert pool.allocate() == blocks[2]
    assert forgotten == [blocks[0], blocks[2]]


@pytest.mark.parametrize("sizes", [(0, 16), (4, 0), (-1, 16)])
def test_impossible_sizes(sizes):
    with pytest.raises(InvalidCacheConfiguration):
        BlockPool(*sizes)


def test_check_finds_a_leak_and_a_double_use():
    pool = BlockPool(4, 16)
    block = pool.allocate()
    with pytest.raises(AssertionError, match="wrong counts"):
        pool.check([])
    with pytest.raises(AssertionError, match="wrong counts"):
        pool.check([[block], [block]])
    pool.check([[block]])


@given(st.lists(st.tuples(st.sampled_from("arskdt"), st.integers(0, 30)), max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_history_keeps_every_block_in_one_place(history):
    pool = BlockPool(5, 8)
    held = []
    for action, pick in history:
        if action == "a":
            try:
                held.append(pool.allocate())
            except CacheCapacityExceeded:
                assert len(set(held)) == 5
        elif action == "t":
            pool.touch(pick % 5)
        elif action == "d":
            pool.drop(pick % 5)
        elif held:
            block = held[pick % len(held)]
            if action == "r":
                held.remove(block)
                pool.release(block)
            elif action == "s":
                pool.retain(block)
                held.append(block)
            else:
                pool.keep(block)
        pool.check([held])
        assert pool.n_used == len(set(held))
