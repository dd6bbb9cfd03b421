"""Which sequences run in the next step, and how many tokens of each.

Continuous batching: every step is composed anew. Running sequences that decode come first, one
token each; what is left of the step's budget goes to prompts, oldest first, in chunks; then waiting
sequences are admitted in their order of arrival. A sequence gets the blocks for all its tokens when
it is admitted, so only decoding can run out of blocks; then the youngest running sequence is
preempted: it gives its blocks back, waits at its place in the order of arrival, and is computed
again (which gives the same keys and values, to the bit). The oldest is never preempted and always
fits alone, so there is always progress.

One owner, the engine's thread: there are no locks.
"""

from __future__ import annotations

from bisect import insort

from rocmforge.cache.block_pool import BlockPool
from rocmforge.cache.prefix_cache import PrefixCache
from rocmforge.config import SchedulerConfig
from rocmforge.engine.batch import Batch, Chunk
from rocmforge.engine.sequence import Sequence
from rocmforge.engine.step_budget import StepBudget
from rocmforge.errors import BatchSizeExceeded, QueueCapacityExceeded
from rocmforge.request import RequestState


class Scheduler:
    """The waiting and the running sequences, both in order of arrival."""

    def __init__(
        self,
        pool: BlockPool,
        prefix_cache: PrefixCache | None,
        config: SchedulerConfig,
        budget: StepBudget,
    ) -> None:
        self.pool = pool
        self.prefix_cache = prefix_cache
        self.budget = budget
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.n_preemptions = 0
        self._config = config

    @property
    def has_work(self) -> bool:
        """True when a step would run something."""
        return bool(self.waiting or self.running)

    def check_capacity(self, n_sequences: int) -> None:
        """Raises QueueCapacityExceeded when that many more would wait behind a full queue, and
        BatchSizeExceeded when they never fit.

        A free place in the batch counts as room: whoever takes it does not wait. So all that was
        accepted once is accepted again after a restart.
        """
        room = self._config.max_queue + self._config.max_batch_size
        if n_sequences > room:
            raise BatchSizeExceeded(
                f"{n_sequences} choices were asked for, and at most {room} sequences run and wait "
                "here; lower n, or raise scheduler.max_queue",
                param="n",
            )
        if len(self.waiting) + len(self.running) + n_sequences > room:
            raise QueueCapacityExceeded(
                f"the queue is full: {len(self.waiting)} sequences wait "
                f"(scheduler.max_queue = {self._config.max_queue}); try again later"
            )

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        insort(self.waiting, sequence, key=_arrival)

    def remove(self, sequence: Sequence, state: RequestState) -> None:
        """A sequence has ended in `state`, at whatever stage: its blocks are free now."""
        sequence.move_to(state)
        (self.running if sequence.is_running else self.waiting).remove(sequence)
        sequence.is_running = False
        sequence.table.release()

    def schedule(self) -> Batch:
        """Compose the next step; empty only without work. Admits, and preempts if it must."""
        batch = Batch()
        n_preemptions = self.n_preemptions
        self._schedule_decodes(batch)
        room = self.budget.prefill_tokens(len(batch.chunks))
        room = self._schedule_prefills(batch, room)
        if self.n_preemptions == n_preemptions:
            self._admit(batch, room)
        return batch

    def commit(self, chunk: Chunk) -> None:
        """The chunk's keys and values are in their blocks: go on behind it, and let others share
        the blocks that it filled.
        """
        sequence = chunk.sequence
        sequence.num_computed_tokens = chunk.end
        sequence.table.register(sequence.tokens, chunk.end)

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's blocks; it waits at its old place and is computed again."""
        self.running.remove(sequence)
        sequence.is_running = False
        sequence.num_computed_tokens = 0
        sequence.table.release()
        self.n_preemptions += 1
        self.add(sequence)

    def check(self) -> None:
        """Assert that blocks, tables and prefix cache agree, and that nobody is in two places."""
        self.pool.check(sequence.table.block_ids for sequence in self.running)
        if self.prefix_cache is not None:
            self.prefix_cache.check()
        for sequence in self.running:
            assert sequence.is_running
            assert sequence.state is RequestState.Processing
            assert sequence.num_computed_tokens < sequence.num_tokens
            assert sequence.num_computed_tokens <= sequence.table.n_positions
        for sequence in self.waiting:
            assert sequence.is_alive
            assert not sequence.is_running
            assert not sequence.table.block_ids
            assert sequence.num_computed_tokens == 0
        for queue in (self.waiting, self.running):
            assert queue == sorted(queue, key=_arrival)
        assert len(self.running) <= self._config.max_batch_size

    def _schedule_decodes(self, batch: Batch) -> None:
        for sequence in tuple(self.running):
            if sequence.num_missing_tokens != 1:
                continue
            # Only every so many steps a sequence needs another block.
            if sequence.table.n_positions < sequence.num_tokens:
                self._grow(sequence)
            if sequence.is_running:
                batch.chunks.append(Chunk.of(sequence, 1))

    def _grow(self, sequence: Sequence) -> None:
        """Give a running sequence another block, or preempt it when there is none for it."""
        # The youngest is at or behind this place in the order, so it is in no chunk yet.
        while sequence.is_running and not self._has_blocks(sequence):
            self.preempt(self.running[-1])
        if sequence.is_running:
            sequence.table.grow(sequence.num_tokens)

    def _has_blocks(self, sequence: Sequence) -> bool:
        return sequence.table.blocks_missing(sequence.num_tokens) <= self.pool.n_available

    def _schedule_prefills(self, batch: Batch, room: int) -> int:
        """Chunks of admitted prompts, oldest first; the room that is left."""
        for sequence in self.running:
            if sequence.num_missing_tokens > 1:
                room -= self._add_chunk(batch, sequence, room)
        return room

    def _admit(self, batch: Batch, room: int) -> None:
        """Start waiting sequences in order, until one has to wait for room. (Those that wait for
        blocks which another is computing are passed over: it is ahead of them.)
        """
        n_passed = 0
        for sequence in tuple(self.waiting):
            if room < 1 or len(self.running) >= self._config.max_batch_size:
                return
            if sequence.waits_for_leader and self.prefix_cache is not None:
                continue
            if self._is_being_computed(sequence):
                n_passed += 1
                # To look at all of a long queue of equal prompts would hold up the step.
                if n_passed == self._config.max_batch_size:
                    return
                continue
            if not self._start(sequence):
                return
            room -= self._add_chunk(batch, sequence, room)

    def _is_being_computed(self, sequence: Sequence) -> bool:
        """Whether a running sequence is about to compute the first block that the prefix cache
        does not know of this one: clients that begin together often begin alike. It is computed
        once then, and waiting costs nothing, because prompts are run oldest first.
        """
        if self.prefix_cache is None:
            return False
        size, n_known = self.pool.block_tokens, None
        for other in self.running:
            if other.num_missing_tokens <= 1:
                continue
            if n_known is None:
                n_known = len(self.prefix_cache.lookup(sequence.tokens(0, sequence.num_tokens - 1)))
            end = (max(n_known, other.num_computed_tokens // size) + 1) * size
            # The last token is computed in any case, so its block is not worth waiting for.
            fits = end < sequence.num_tokens and end <= other.num_tokens
            if fits and tuple(sequence.tokens(0, end)) == tuple(other.tokens(0, end)):
                return True
        return False

    def _start(self, sequence: Sequence) -> bool:
        """Give a sequence the blocks for all its tokens; False when there are too few.

        The last token is always computed, known or not: its logits are needed. Beyond its own, one
        block for each running sequence must stay, or the first to need one would preempt this.
        """
        cache = self.prefix_cache
        known = sequence.tokens(0, sequence.num_tokens - 1)
        chain = [] if cache is None else cache.lookup(known)
        n_new = self.pool.blocks_for(sequence.num_tokens) - len(chain)
        n_woken = sum(self.pool.is_idle(node.block) for node in chain)
        if n_new + n_woken + len(self.running) > self.pool.n_available:
            return False
        n_cached = sequence.table.adopt(chain)
        sequence.table.grow(sequence.num_tokens)
        sequence.num_computed_tokens = n_cached
        if cache is not None:
            cache.count(n_cached)
        if sequence.state is RequestState.Pending:
            sequence.num_cached_tokens = min(n_cached, sequence.num_prompt_tokens)
            sequence.move_to(RequestState.Processing)
        self.waiting.remove(sequence)
        sequence.is_running = True
        insort(self.running, sequence, key=_arrival)
        return True

    @staticmethod
    def _add_chunk(batch: Batch, sequence: Sequence, room: int) -> int:
        n = min(room, sequence.num_missing_tokens)
        if n > 0:
            batch.chunks.append(Chunk.of(sequence, n))
        return n


def _arrival(sequence: Sequence) -> int:
    return sequence.arrival
