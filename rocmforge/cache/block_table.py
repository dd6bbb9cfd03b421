"""The blocks of one sequence, in order: where its keys and values are."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Final

from rocmforge.cache.block_pool import BlockId, BlockPool
from rocmforge.cache.prefix_cache import PrefixCache, PrefixNode
from rocmforge.errors import CacheCapacityExceeded

# Of one block's number in `packed`: an int32 of this machine.
PACKED_BYTES: Final = array("i").itemsize


class BlockTable:
    """Logical block i of a sequence is physical block `block_ids[i]`.

    Shared blocks are full and only read: a sequence adopts whole blocks at its start and writes
    behind them, so nothing is ever copied on write.
    """

    def __init__(self, pool: BlockPool, prefix_cache: PrefixCache | None = None) -> None:
        self._pool = pool
        self._prefix_cache = prefix_cache
        self.block_ids: list[BlockId] = []
        # The chain of prefix nodes that stand for the first blocks ends here.
        self._last_node: PrefixNode | None = None
        self._n_registered = 0
        self._may_register = prefix_cache is not None
        self._packed: bytes | None = None

    @property
    def n_positions(self) -> int:
        """Positions that the blocks can hold."""
        return len(self.block_ids) * self._pool.block_tokens

    def adopt(self, chain: Sequence[PrefixNode]) -> int:
        """Begin an empty table with known blocks; how many tokens they hold."""
        for node in chain:
            self._pool.retain(node.block)
            self.block_ids.append(node.block)
        if chain:
            self._last_node = chain[-1]
            self._n_registered = len(chain)
        self._packed = None
        return len(chain) * self._pool.block_tokens

    def blocks_missing(self, n_tokens: int) -> int:
        """Blocks to allocate before the table holds `n_tokens` positions."""
        return max(0, self._pool.blocks_for(n_tokens) - len(self.block_ids))

    def grow(self, n_tokens: int) -> None:
        """Allocate blocks for `n_tokens` positions in all.

        Raises CacheCapacityExceeded, leaving the table as it was, when they are not there.
        """
        missing = self.blocks_missing(n_tokens)
        if missing > self._pool.n_available:
            raise CacheCapacityExceeded(
                f"{missing} blocks of the KV cache are needed and {self._pool.n_available} are "
                "available; try again later or raise cache.kv_bytes"
            )
        if missing:
            self.block_ids += [self._pool.allocate() for _ in range(missing)]
            self._packed = None

    def packed(self, n_tokens: int) -> bytes:
        """The numbers of the blocks that hold the first `n_tokens` positions, as int32 side by
        side.
        """
        # A table changes every few steps, and each of them needs it.
        if self._packed is None:
            self._packed = array("i", self.block_ids).tobytes()
        return self._packed[: PACKED_BYTES * self._pool.blocks_for(n_tokens)]

    def register(self, tokens: Callable[[int, int], Sequence[int]], n_computed: int) -> None:
        """Tell the prefix cache about blocks that the first `n_computed` tokens have filled;
        `tokens(start, end)` says which these are.

        When another sequence was first with the same tokens, its block replaces ours: equal
        content, one block saved.
        """
        size = self._pool.block_tokens
        while self._may_register and (self._n_registered + 1) * size <= n_computed:
            start = self._n_registered * size
            self._register_next(tuple(tokens(start, start + size)))

    def release(self) -> None:
        """Give all blocks back, last one first (see BlockPool.release)."""
        for block in reversed(self.block_ids):
            self._pool.release(block)
        self.block_ids.clear()
        self._packed = None
        self._last_node = None
        self._n_registered = 0
        self._may_register = self._prefix_cache is not None

    def _register_next(self, tokens: tuple[int, ...]) -> None:
        assert self._prefix_cache is not None
        block = self.block_ids[self._n_registered]
        node = self._prefix_cache.extend(self._last_node, tokens, block)
        if node is None:
            self._may_register = False
            return
        if node.block != block:
            self._pool.retain(node.block)
            self._pool.release(block)
            self.block_ids[self._n_registered] = node.block
            self._packed = None
        self._last_node = node
        self._n_registered += 1
