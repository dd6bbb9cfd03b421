"""Which KV blocks hold which tokens, so that a prompt that begins like an earlier one skips work.

A node is one full block; its key is the hash of its parent's key and its own tokens, so one lookup
per block walks the longest known prefix. Hashes are not trusted: a node counts only when its tokens
and its parent are the right ones, so two prompts with equal hashes never share keys and values.

Nodes do not use their blocks: a block without users stays in the pool as an idle one, and is
forgotten here when the pool needs it. Whoever uses a block uses all blocks before it and releases
the last one first, so idle chains lose their tails before their heads.

One owner, the engine's thread: there are no locks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rocmforge.cache.block_pool import BlockId, BlockPool
from rocmforge.errors import CacheError


@dataclass(frozen=True)
class PrefixEntry:
    """Tokens (a whole number of blocks) and the blocks that hold their keys and values."""

    tokens: tuple[int, ...]
    block_ids: tuple[BlockId, ...]


@dataclass(frozen=True)
class PrefixStats:
    """Counters since the start (`queries`, `hits`, `misses`, `hit_tokens`) and what is held now."""

    queries: int = 0
    hits: int = 0
    hit_tokens: int = 0
    n_entries: int = 0
    n_bytes: int = 0

    @property
    def misses(self) -> int:
        """Queries that found nothing."""
        return self.queries - self.hits

    @property
    def hit_rate(self) -> float:
        """Hits per query, 0 before the first."""
        return self.hits / self.queries if self.queries else 0.0


@dataclass(eq=False)
class PrefixNode:
    """One known block. Compared by identity: equal hashes do not make equal nodes."""

    key: int
    tokens: tuple[int, ...]
    block: BlockId
    parent: PrefixNode | None
    children: set[int] = field(default_factory=set)


class PrefixCache:
    """The longest-prefix map over a pool's blocks.

    max_entries and max_bytes (blocks, and blocks · block_bytes) bound what is remembered; None
    leaves it to the pool's size. `hash_block(parent key, tokens)` is exchangeable for tests.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        block_bytes: int = 0,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        hash_block: Callable[[tuple[int, tuple[int, ...]]], int] = hash,
    ) -> None:
        self._pool = pool
        self._block_bytes = block_bytes
        self._limit = _block_limit(pool.n_blocks, block_bytes, max_entries, max_bytes)
        self._hash_block = hash_block
        self._nodes: dict[int, PrefixNode] = {}
        self._node_of: dict[BlockId, PrefixNode] = {}
        self._queries = 0
        self._hits = 0
        self._hit_tokens = 0
        pool.on_reuse(self._forget)

    @property
    def stats(self) -> PrefixStats:
        """Counters and sizes."""
        return PrefixStats(
            queries=self._queries,
            hits=self._hits,
            hit_tokens=self._hit_tokens,
            n_entries=len(self._nodes),
            n_bytes=len(self._nodes) * self._block_bytes,
        )

    def lookup(self, tokens: Sequence[int]) -> list[PrefixNode]:
        """The nodes of the longest known prefix of `tokens`, first block first; counts nothing."""
        size = self._pool.block_tokens
        chain: list[PrefixNode] = []
        parent: PrefixNode | None = None
        for start in range(0, len(tokens) - size + 1, size):
            parent = self._find(parent, tuple(tokens[start : start + size]))
            if parent is None:
                break
            chain.append(parent)
        return chain

    def get(self, tokens: Sequence[int]) -> PrefixEntry | None:
        """The longest known prefix of `tokens`, now the most recently used, or None.

        The caller retains the blocks before it allocates any other, or they may be reused.
        """
        chain = self.lookup(tokens)
        self.count(len(chain) * self._pool.block_tokens)
        for node in reversed(chain):
            self._pool.touch(node.block)
        if not chain:
            return None
        return PrefixEntry(
            tuple(token for node in chain for token in node.tokens),
            tuple(node.block for node in chain),
        )

    def count(self, n_hit_tokens: int) -> None:
        """Count one query that found `n_hit_tokens` tokens."""
        self._queries += 1
        self._hits += n_hit_tokens > 0
        self._hit_tokens += n_hit_tokens

    def insert(self, entry: PrefixEntry) -> None:
        """Remember an entry whose blocks are in use. Blocks that are known already stay as they
        are.

        Raises CacheError.InvalidEntry when tokens and blocks do not fit together, a block is not in
        use or holds other tokens, or the limits leave no room.
        """
        size = self._pool.block_tokens
        if not entry.block_ids or len(entry.tokens) != size * len(entry.block_ids):
            raise CacheError.InvalidEntry(
                f"an entry of {len(entry.block_ids)} blocks needs {size} tokens for each (at least "
                f"one), got {len(entry.tokens)} tokens"
            )
        for block in entry.block_ids:
            if not 0 <= block < self._pool.n_blocks or self._pool.refs(block) == 0:
                raise CacheError.InvalidEntry(f"block {block} is not in use")
        parent: PrefixNode | None = None
        for i, block in enumerate(entry.block_ids):
            parent = self.extend(parent, entry.tokens[i * size : (i + 1) * size], block)
            if parent is None:
                raise CacheError.InvalidEntry(
                    f"block {block} cannot be remembered: it is known for other tokens, or the "
                    f"limit of {self._limit} blocks is reached by blocks in use"
                )

    def extend(
        self, parent: PrefixNode | None, tokens: tuple[int, ...], block: BlockId
    ) -> PrefixNode | None:
        """Remember one used block after `parent` (None: at the start); the node that now stands
        for these tokens, which may be an older one with another block of equal content.

        None when it cannot be remembered (a hash collision, or the limit is reached by used
        blocks); blocks after this one cannot be either.
        """
        key = self._hash_block((parent.key if parent else 0, tokens))
        known = self._nodes.get(key)
        if known is not None:
            return known if known.parent is parent and known.tokens == tokens else None
        if block in self._node_of or not self._make_room(parent):
            return None
        node = PrefixNode(key, tokens, block, parent)
        self._nodes[key] = node
        self._node_of[block] = node
        if parent is not None:
            parent.children.add(key)
        self._pool.keep(block)
        return node

    def clear(self) -> int:
        """Forget all blocks without users; how many that were."""
        before = len(self._nodes)
        while self._pool.reuse_oldest():
            pass
        return before - len(self._nodes)

    def check(self) -> None:
        """Assert that both maps agree and that every chain is whole."""
        assert len(self._nodes) == len(self._node_of) <= self._limit
        for key, node in self._nodes.items():
            assert node.key == key
            assert self._node_of[node.block] is node
            assert node.parent is None or self._nodes.get(node.parent.key) is node.parent
            assert node.parent is None or key in node.parent.children
            assert self._pool.refs(node.block) or self._pool.is_idle(node.block)

    def _find(self, parent: PrefixNode | None, tokens: tuple[int, ...]) -> PrefixNode | None:
        node = self._nodes.get(self._hash_block((parent.key if parent else 0, tokens)))
        if node is None or node.parent is not parent or node.tokens != tokens:
            return None
        return node

    def _make_room(self, parent: PrefixNode | None) -> bool:
        """Room for one more node, without forgetting the one it comes after."""
        if len(self._nodes) < self._limit:
            return True
        if not self._pool.reuse_oldest():
            return False
        return parent is None or self._nodes.get(parent.key) is parent

    def _forget(self, block: BlockId) -> None:
        """Forget a block and all that come after it: without it they cannot be found."""
        first = self._node_of[block]
        if first.parent is not None:
            first.parent.children.discard(first.key)
        pending = [first]
        while pending:
            node = pending.pop()
            pending += [self._nodes[key] for key in node.children]
            del self._nodes[node.key], self._node_of[node.block]
            self._pool.drop(node.block)


def _block_limit(
    n_blocks: int, block_bytes: int, max_entries: int | None, max_bytes: int | None
) -> int:
    limits = [n_blocks]
    if max_entries is not None:
        limits.append(max_entries)
    if max_bytes is not None and block_bytes:
        limits.append(max_bytes // block_bytes)
    return max(0, min(limits))
