"""Sequences that share blocks, and those that have to give theirs up."""

from __future__ import annotations

from tests.support.tiny_engine import (
    Collected,
    answer_alone,
    assert_idle,
    drain,
    hash_engine,
    request,
)


class TestChoices:
    def test_choices_share_the_prompt(self):
        engine, _ = hash_engine()
        engine.submit(request(prompt=range(40), n=4))
        collected = drain(engine)
        answers = [collected.answers["r", c] for c in range(4)]
        assert len({tuple(a.token_ids) for a in answers}) == 4
        # 40 tokens once, and for each other choice what is behind the last full block of 8
        # (the last token is always computed).
        assert engine.stats().prompt_tokens_total == 40 + 3 * 8

    def test_without_prefix_cache_they_read_it_themselves(self):
        engine, _ = hash_engine(prefix_cache=False)
        engine.submit(request(prompt=range(40), n=4))
        collected = drain(engine)
        assert engine.stats().prompt_tokens_total == 160
        shared = answer_alone(hash_engine, request(prompt=range(40), n=4))
        assert [collected.answers["r", c] for c in range(4)] == shared

    def test_more_choices_than_places(self):
        engine, _ = hash_engine(batch=3)
        engine.submit(request(prompt=range(20), n=8))
        assert len(drain(engine).answers) == 8

    def test_a_cancelled_leader_does_not_hold_up_the_others(self):
        engine, _ = hash_engine(step_tokens=16)
        engine.submit(request(prompt=range(40), n=3))
        collected = Collected()
        collected.take(engine.step())
        assert engine.stats().n_waiting == 2
        assert engine.cancel("r", 0)
        drain(engine, collected)
        assert set(collected.answers) == {("r", 1), ("r", 2)}

    def test_others_are_not_held_up_by_waiting_choices(self):
        engine, _ = hash_engine(step_tokens=16)
        engine.submit(request("many", prompt=range(14), n=3))
        engine.submit(request("other", prompt=range(20, 24), max_tokens=2))
        collected = Collected()
        collected.take(engine.step())
        assert set(collected.started) == {"many", "other"}
        drain(engine, collected)


class TestBeginningsInTheMaking:
    """Requests that come together and begin alike: the beginning is computed once."""

    SYSTEM = range(40)

    def together(self, engine, n=4):
        for i in range(n):
            engine.submit(request(f"r{i}", prompt=[*self.SYSTEM, 50 + i, 3], max_tokens=3))

    def test_it_is_computed_once(self):
        engine, _ = hash_engine(step_tokens=256)
        self.together(engine)
        collected = drain(engine)
        # 42 tokens, then the two behind the shared blocks for each of the others.
        assert engine.stats().prompt_tokens_total == 42 + 3 * 2
        assert [collected.started[f"r{i}"] for i in range(4)] == [0, 40, 40, 40]
        for i in range(4):
            alone = request("a", prompt=[*self.SYSTEM, 50 + i, 3], max_tokens=3)
            assert collected.answers[f"r{i}", 0] == answer_alone(hash_engine, alone)[0]

    def test_it_is_computed_once_in_chunks(self):
        engine, _ = hash_engine(step_tokens=16)
        self.together(engine)
        drain(engine)
        assert engine.stats().prompt_tokens_total == 42 + 3 * 2

    def test_who_begins_otherwise_does_not_wait(self):
        engine, _ = hash_engine(step_tokens=256)
        self.together(engine)
        engine.submit(request("other", prompt=range(20, 40), max_tokens=3))
        collected = Collected()
        collected.take(engine.step())
        assert set(collected.started) == {"r0", "other"}
        drain(engine, collected)

    def test_a_cancelled_first_leaves_the_work_to_the_second(self):
        engine, _ = hash_engine(step_tokens=16)
        self.together(engine)
        collected = Collected()
        collected.take(engine.step())
        assert engine.cancel("r0")
        drain(engine, collected)
        assert set(collected.answers) == {(f"r{i}", 0) for i in range(1, 4)}
        # Two of the first's blocks were full; the second computed the rest.
        assert engine.stats().prompt_tokens_total == 16 + (42 - 16) + 2 * 2
        assert_idle(engine)

    def test_a_known_beginning_is_not_waited_for(self):
        engine, _ = hash_engine(step_tokens=256)
        engine.submit(request("before", prompt=[*self.SYSTEM, 1], max_tokens=1))
        drain(engine)
        self.together(engine)
        collected = Collected()
        collected.take(engine.step())
        assert len(collected.started) == 4
        drain(engine, collected)

    def test_a_long_queue_of_equals_is_not_looked_through(self):
        engine, _ = hash_engine(step_tokens=16, batch=2)
        self.together(engine, n=6)
        engine.submit(request("other", prompt=range(20, 24), max_tokens=2))
        assert len(drain(engine).answers) == 7

    def test_without_prefix_cache_nobody_waits(self):
        engine, _ = hash_engine(step_tokens=256, prefix_cache=False)
        self.together(engine)
        collected = Collected()
        collected.take(engine.step())
        # Of the 64 tokens of a first step, the second gets what the first leaves.
        assert set(collected.started) == {"r0", "r1"}
        drain(engine, collected)


class TestPrefixCache:
    def test_a_second_turn_skips_what_is_known(self):
        engine, _ = hash_engine()
        engine.submit(request("one", prompt=range(30), max_tokens=20))
        first = drain(engine).answers["one", 0].token_ids
        engine.submit(request("two", prompt=[*range(30), *first, 5, 6], max_tokens=4))
        collected = drain(engine)
        assert collected.started["two"] == 48
        stats = engine.stats()
        assert (stats.prefix_queries_total, stats.prefix_hits_total) == (2, 1)
        assert stats.prefix_hit_tokens_total == 48
        cold = answer_alone(hash_engine, request("c", [*range(30), *first, 5, 6], max_tokens=4))
        assert collected.answers["two", 0] == cold[0]

    def test_a_full_hit_still_computes_the_last_token(self):
        engine, _ = hash_engine()
        for name in ("one", "two"):
            engine.submit(request(name, prompt=range(32)))
            collected = drain(engine)
        assert collected.started["two"] == 24
        assert (
            collected.answers["two", 0] == answer_alone(hash_engine, request(prompt=range(32)))[0]
        )

    def test_off_means_off(self):
        engine, _ = hash_engine(prefix_cache=False)
        for name in ("one", "two"):
            engine.submit(request(name, prompt=range(32)))
            collected = drain(engine)
        assert collected.started["two"] == 0
        stats = engine.stats()
        assert (stats.blocks_cached, stats.prefix_queries_total) == (0, 0)

    def test_old_prefixes_make_room(self):
        engine, _ = hash_engine(n_blocks=12)
        for i in range(20):
            engine.submit(request(str(i), prompt=range(i, i + 40)))
            drain(engine)
        assert engine.stats().preemptions_total == 0


class TestPreemption:
    def crowd(self, engine, n=6):
        for i in range(n):
            engine.submit(request(str(i), prompt=range(i, i + 15), max_tokens=40))

    def test_when_blocks_run_out_the_youngest_waits_and_nothing_changes(self):
        engine, _ = hash_engine(n_blocks=20)
        self.crowd(engine)
        collected = drain(engine)
        assert engine.stats().preemptions_total > 0
        for i in range(6):
            alone = answer_alone(hash_engine, request("x", prompt=range(i, i + 15), max_tokens=40))
            assert collected.answers[str(i), 0] == alone[0]

    def test_the_oldest_is_never_preempted(self):
        engine, _ = hash_engine(n_blocks=8)
        self.crowd(engine)
        oldest = engine._scheduler.waiting[0]
        n_computed = 0
        while oldest.is_alive:
            engine.step()
            assert oldest.num_computed_tokens > n_computed or not oldest.is_alive
            n_computed = oldest.num_computed_tokens
        while engine.has_work:
            engine.step()
        assert_idle(engine)

    def test_one_sequence_may_have_the_whole_cache(self):
        engine, _ = hash_engine(n_blocks=8, n_ctx=64)
        self.crowd(engine, n=3)
        engine.submit(request("big", prompt=range(50), max_tokens=14))
        collected = drain(engine)
        assert len(collected.answers["big", 0].token_ids) == 14

    def test_choices_of_a_preempted_leader(self):
        engine, _ = hash_engine(n_blocks=9, step_tokens=16)
        engine.submit(request("old", prompt=range(10), max_tokens=50))
        engine.submit(request("new", prompt=range(20, 45), n=3, max_tokens=20))
        collected = drain(engine)
        assert engine.stats().preemptions_total > 0
        alone = answer_alone(hash_engine, request("x", range(20, 45), n=3, max_tokens=20))
        assert [collected.answers["new", c] for c in range(3)] == alone
