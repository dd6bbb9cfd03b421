"""The prefix cache: longest match, tokens compared, limits, order of forgetting."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocmforge.cache.block_pool import BlockPool
from rocmforge.cache.block_table import BlockTable
from rocmforge.cache.prefix_cache import PrefixCache, PrefixEntry
from rocmforge.errors import CacheCapacityExceeded, CacheError

P = 4


def make(n_blocks=8, **limits):
    pool = BlockPool(n_blocks, P)
    return pool, PrefixCache(pool, block_bytes=100, **limits)


def remember(pool, cache, tokens):
    """Insert `tokens` as a sequence that then ends would have; its blocks."""
    blocks = tuple(pool.allocate() for _ in range(len(tokens) // P))
    cache.insert(PrefixEntry(tuple(tokens), blocks))
    for block in reversed(blocks):
        pool.release(block)
    return blocks


def test_the_longest_known_prefix_is_found_and_counted():
    pool, cache = make()
    blocks = remember(pool, cache, range(12))
    assert cache.get([*range(12), 99]) == PrefixEntry(tuple(range(12)), blocks)
    assert cache.get([*range(11), 99]) == PrefixEntry(tuple(range(8)), blocks[:2])
    assert cache.get([7, *range(11)]) is None
    assert cache.get([0, 1, 2]) is None
    stats = cache.stats
    assert (stats.queries, stats.hits, stats.misses, stats.hit_tokens) == (4, 2, 2, 20)
    assert stats.hit_rate == 0.5
    assert (stats.n_entries, stats.n_bytes) == (3, 300)


def test_equal_blocks_at_another_place_are_no_hit():
    pool, cache = make()
    remember(pool, cache, [1, 1, 1, 1, 2, 2, 2, 2])
    assert cache.get([2, 2, 2, 2]) is None
    assert cache.get([1, 1, 1, 1, 1, 1, 1, 1]).tokens == (1, 1, 1, 1)


@pytest.mark.parametrize("colliding_hash", [lambda key: 5, lambda key: sum(key[1])])
def test_hashes_are_not_trusted(colliding_hash):
    pool = BlockPool(8, P)
    cache = PrefixCache(pool, hash_block=colliding_hash)
    remember(pool, cache, [1, 2, 3, 4])
    assert cache.get([4, 3, 2, 1]) is None
    assert cache.get([1, 2, 3, 4]).tokens == (1, 2, 3, 4)
    block = pool.allocate()
    with pytest.raises(CacheError.InvalidEntry, match="other tokens"):
        cache.insert(PrefixEntry((4, 3, 2, 1), (block,)))
    # The same tokens behind another beginning: same hash, another place.
    table = BlockTable(pool, cache)
    table.grow(8)
    tokens = [1, 2, 3, 4, 4, 3, 2, 1]
    table.register(lambda start, end: tokens[start:end], 8)
    assert cache.get(tokens).tokens == (1, 2, 3, 4)
    cache.check()


@pytest.mark.parametrize(
    ("tokens", "n_blocks"), [((), 0), ((1, 2, 3), 1), ((1, 2, 3, 4), 2), (range(8), 1)]
)
def test_entries_that_do_not_fit_together_are_refused(tokens, n_blocks):
    pool, cache = make()
    blocks = tuple(pool.allocate() for _ in range(n_blocks))
    with pytest.raises(CacheError.InvalidEntry, match="needs 4 tokens for each"):
        cache.insert(PrefixEntry(tuple(tokens), blocks))


def test_entries_of_blocks_that_nobody_uses_are_refused():
    _, cache = make()
    for block in (0, -1, 8):
        with pytest.raises(CacheError.InvalidEntry, match="not in use"):
            cache.insert(PrefixEntry((1, 2, 3, 4), (block,)))


@pytest.mark.parametrize("limits", [{"max_entries": 2}, {"max_bytes": 299}])
def test_limits_forget_the_least_recently_used(limits):
    pool, cache = make(**limits)
    remember(pool, cache, [1] * P)
    remember(pool, cache, [2] * P)
    assert cache.get([1] * P)
    remember(pool, cache, [3] * P)
    assert cache.get([2] * P) is None
    assert cache.get([1] * P)
    assert cache.get([3] * P)
    assert cache.stats.n_entries == 2
    pool.check([])
    cache.check()


def test_limits_never_forget_blocks_in_use():
    pool, cache = make(max_entries=1)
    block, other = pool.allocate(), pool.allocate()
    cache.insert(PrefixEntry((1,) * P, (block,)))
    with pytest.raises(CacheError.InvalidEntry, match="limit of 1"):
        cache.insert(PrefixEntry((2,) * P, (other,)))
    assert cache.get([1] * P)


def test_the_pool_takes_the_tail_of_the_oldest_chain_first():
    pool, cache = make(n_blocks=5)
    remember(pool, cache, range(12))
    remember(pool, cache, range(100, 108))
    pool.allocate()
    assert len(cache.get(range(12)).block_ids) == 2
    # That was a use: the other chain is older now.
    pool.allocate()
    assert len(cache.get(range(100, 108)).block_ids) == 1
    assert len(cache.get(range(12)).block_ids) == 2
    cache.check()


def test_a_table_gives_its_blocks_back_tail_first():
    pool, cache = make(n_blocks=5)
    table = BlockTable(pool, cache)
    table.grow(12)
    table.register(lambda start, end: range(start, end), 12)
    table.release()
    for _ in range(3):
        pool.allocate()
    assert len(cache.get(range(12)).block_ids) == 2


def test_what_cannot_be_found_any_more_is_forgotten():
    """Blocks that are given back head first lose their head first, and the rest with it."""
    pool, cache = make(n_blocks=3)
    blocks = [pool.allocate() for _ in range(3)]
    cache.insert(PrefixEntry(tuple(range(12)), tuple(blocks)))
    for block in blocks[:2]:
        pool.release(block)
    taken = pool.allocate()
    assert taken in blocks[:2]
    cache.check()
    pool.check([[taken, blocks[2]]])
    assert cache.stats.n_entries == 0
    assert pool.n_idle == 0


def test_no_room_is_made_by_forgetting_what_comes_before():
    pool, cache = make(max_entries=1)
    remember(pool, cache, [1] * P)
    with pytest.raises(CacheError.InvalidEntry):
        cache.insert(PrefixEntry((1,) * P + (2,) * P, (pool.allocate(), pool.allocate())))
    cache.check()


def test_clear_forgets_only_what_nobody_uses():
    pool, cache = make()
    remember(pool, cache, range(12))
    table = BlockTable(pool, cache)
    table.adopt(cache.lookup(range(8)))
    assert cache.clear() == 1
    assert len(cache.get(range(12)).block_ids) == 2
    table.release()
    assert cache.clear() == 2
    assert cache.get(range(12)) is None
    pool.check([])


def test_two_sequences_that_compute_the_same_end_up_with_one_copy():
    pool, cache = make()
    first, second = BlockTable(pool, cache), BlockTable(pool, cache)
    tokens = list(range(10))
    for table in (first, second):
        table.grow(10)
    for table in (first, second):
        table.register(lambda start, end: tokens[start:end], 10)
    assert first.block_ids[:2] == second.block_ids[:2]
    assert first.block_ids[2] != second.block_ids[2]
    assert pool.n_used == 4
    pool.check([first.block_ids, second.block_ids])
    first.release()
    second.release()
    pool.check([])
    assert pool.n_idle == 2


def test_a_table_grows_all_or_nothing():
    pool, cache = make(n_blocks=3)
    table = BlockTable(pool, cache)
    table.grow(5)
    with pytest.raises(CacheCapacityExceeded):
        table.grow(13)
    assert len(table.block_ids) == 2
    assert table.n_positions == 8
    table.grow(12)
    assert pool.n_available == 0


@given(
    st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 1), max_size=14)), max_size=30),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_history_answers_with_blocks_of_the_right_tokens(history, weak_hash):
    """A model of the cache's promise: a block that is found was filled with exactly these tokens,
    at this place, and not reused since.
    """
    pool = BlockPool(9, P)
    cache = PrefixCache(
        pool, hash_block=(lambda key: sum(key[1]) + key[0] % 2) if weak_hash else hash
    )
    content = {}
    tables = []
    for action, tokens in history:
        if action == 0 and tables:
            tables.pop(len(tokens) % len(tables)).release()
        else:
            table = BlockTable(pool, cache)
            chain = cache.lookup(tokens)
            assert all(content[node.block] == tokens[: (i + 1) * P] for i, node in enumerate(chain))
            n_cached = table.adopt(chain)
            try:
                table.grow(len(tokens))
            except CacheCapacityExceeded:
                table.release()
                continue
            for i, block in enumerate(table.block_ids):
                if i * P >= n_cached:
                    content[block] = tokens[: (i + 1) * P]
            table.register(lambda start, end, tokens=tokens: tokens[start:end], len(tokens))
            tables.append(table)
        pool.check(table.block_ids for table in tables)
        cache.check()
