"""Who uses which block of the paged KV cache: reference counts, a free list, and least recently
used reuse of blocks whose content is worth keeping.

A block is in exactly one of three places:

    free       nobody uses it, its content is worthless
    idle       nobody uses it, but the prefix cache knows its content (`kept`); oldest first
    used       refs ≥ 1 tables use it (kept or not)

Idle blocks count as available: `allocate` takes free ones first, then the oldest idle one, telling
the prefix cache to forget it. So cached prefixes never cost a running sequence a block.

One owner, the engine's thread: there are no locks.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import NewType

from rocmforge.errors import CacheCapacityExceeded, InternalError, InvalidCacheConfiguration

BlockId = NewType("BlockId", int)


class BlockPool:
    """N blocks of P positions each, by number; the memory itself belongs to the backend."""

    def __init__(self, n_blocks: int, block_tokens: int) -> None:
        """Raises InvalidCacheConfiguration unless both are positive."""
        if n_blocks < 1 or block_tokens < 1:
            raise InvalidCacheConfiguration(
                f"the KV cache needs at least one block of one position, got {n_blocks} blocks of "
                f"{block_tokens}; raise cache.kv_bytes"
            )
        self.n_blocks = n_blocks
        self.block_tokens = block_tokens
        self._refs = [0] * n_blocks
        self._kept = [False] * n_blocks
        # A stack, lowest number on top: recently used blocks are warm in the caches.
        self._free = [BlockId(i) for i in reversed(range(n_blocks))]
        self._idle: OrderedDict[BlockId, None] = OrderedDict()
        self._on_reuse: Callable[[BlockId], None] | None = None

    def on_reuse(self, forget: Callable[[BlockId], None]) -> None:
        """`forget(block)` is called before a kept block is given to someone else. It must `drop`
        the block.
        """
        self._on_reuse = forget

    @property
    def n_available(self) -> int:
        """Blocks that `allocate` can hand out now: free and idle ones."""
        return len(self._free) + len(self._idle)

    @property
    def n_idle(self) -> int:
        """Blocks that only the prefix cache has an interest in."""
        return len(self._idle)

    @property
    def n_used(self) -> int:
        """Blocks that tables use."""
        return self.n_blocks - self.n_available

    def blocks_for(self, n_tokens: int) -> int:
        """Blocks that hold `n_tokens` positions."""
        return -(-n_tokens // self.block_tokens)

    def refs(self, block: BlockId) -> int:
        """How many users a block has."""
        return self._refs[block]

    def is_idle(self, block: BlockId) -> bool:
        """True for a kept block without users."""
        return block in self._idle

    def allocate(self) -> BlockId:
        """A block with one user and undefined content. Raises CacheCapacityExceeded when all are
        used.
        """
        if not self._free and not self.reuse_oldest():
            raise CacheCapacityExceeded(
                f"all {self.n_blocks} blocks of the KV cache are in use; "
                "try again later or raise cache.kv_bytes"
            )
        block = self._free.pop()
        self._refs[block] = 1
        return block

    def retain(self, block: BlockId) -> None:
        """One more user of a used or idle block."""
        if self._refs[block] == 0 and block not in self._idle:
            raise InternalError(f"block {block} is free: it has no content to share")
        self._idle.pop(block, None)
        self._refs[block] += 1

    def release(self, block: BlockId) -> None:
        """One user less. The last one of a kept block makes it the youngest idle one, so a chain
        of blocks is to be released last block first: its tail is then reused before its head.
        """
        if self._refs[block] == 0:
            raise InternalError(f"block {block} was released more often than it was used")
        self._refs[block] -= 1
        if self._refs[block] == 0:
            if self._kept[block]:
                self._idle[block] = None
            else:
                self._free.append(block)

    def keep(self, block: BlockId) -> None:
        """The prefix cache knows the content of a used block: do not hand it out lightly."""
        if self._refs[block] == 0:
            raise InternalError(f"block {block} is not in use: its content cannot be kept")
        self._kept[block] = True

    def drop(self, block: BlockId) -> None:
        """The prefix cache has forgotten this block."""
        self._kept[block] = False
        if block in self._idle:
            del self._idle[block]
            self._free.append(block)

    def touch(self, block: BlockId) -> None:
        """Make an idle block the youngest."""
        if block in self._idle:
            self._idle.move_to_end(block)

    def reuse_oldest(self) -> bool:
        """Turn the oldest idle block into a free one; False when there is none."""
        if not self._idle:
            return False
        block = next(iter(self._idle))
        if self._on_reuse is not None:
            self._on_reuse(block)
        self.drop(block)
        return True

    def check(self, tables: Iterable[Iterable[BlockId]]) -> None:
        """Assert that the blocks of `tables` (of everyone who uses blocks) are exactly the used
        ones, and that every block is in exactly one place.
        """
        users = Counter(block for table in tables for block in table)
        assert {b: n for b, n in enumerate(self._refs) if n} == dict(users), "wrong counts"
        free, idle, used = set(self._free), set(self._idle), set(users)
        assert len(free) == len(self._free), "a block is free twice"
        assert not free & idle, "a block is both free and idle"
        assert not (free | idle) & used, "a used block is available"
        assert len(free) + len(idle) + len(used) == self.n_blocks, "a block is lost"
        assert all(self._kept[b] for b in idle), "an idle block is not kept"
        assert not any(self._kept[b] for b in free), "a free block is kept"
