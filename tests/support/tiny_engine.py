"""Engines for tests: on a fake model that sees every mistake in blocks and positions, and the
means to drive any engine to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rocmforge.config import CacheConfig, EngineConfig, SchedulerConfig
from rocmforge.engine.engine import Engine
from rocmforge.engine.runner import Runner
from rocmforge.engine.step_plan import EngineLimits
from rocmforge.errors import RocmForgeError
from rocmforge.models.loading import load_model
from rocmforge.request import FinishReason, Request, RequestId, SamplingParams
from rocmforge.sampling.sampler import Sampler

N_VOCAB = 61
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_2 = np.uint64(0xBF58476D1CE4E5B9)


def scramble(x):
    """uint64 → uint64, every bit of the result depending on every bit of x."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * _MIX_2
        x = (x ^ (x >> np.uint64(27))) * _MIX
        return x ^ (x >> np.uint64(31))


class HashModel:
    """A model whose logits are a hash of all tokens before them, as read from the paged cache.

    A slot holds a hash of its token and position, so a block that is shared, reused or written
    wrongly changes every later token. Runs any StepPlan; checks its invariants.
    """

    def __init__(self, n_blocks, block_tokens, n_ctx=256, n_vocab=N_VOCAB):
        self.n_blocks, self.block_tokens, self.n_vocab = n_blocks, block_tokens, n_vocab
        self.limits = EngineLimits(n_vocab, n_ctx, n_blocks, block_bytes=64)
        self.slots = np.zeros(n_blocks * block_tokens, np.uint64)
        self.poisoned_token: int | None = None
        self.before_run = None
        self.plans = []

    def run(self, plan):
        plan.check(self.block_tokens, self.n_blocks)
        self.plans.append(plan)
        if self.before_run is not None:
            self.before_run(plan)
        rows = []
        offsets = np.arange(self.block_tokens)
        for s in range(plan.n_sequences):
            start, end = plan.query_start[s : s + 2]
            table = plan.block_tables[s]
            where = (table[table >= 0, None] * self.block_tokens + offsets).reshape(-1)
            positions = plan.positions[start:end].astype(np.uint64)
            tokens = plan.token_ids[start:end].astype(np.uint64)
            self.slots[where[positions.astype(int)]] = scramble(
                tokens + _MIX * (positions + np.uint64(1))
            )
            for row in range(start, end):
                if row in plan.logits_rows:
                    seen = self.slots[where[: plan.positions[row] + 1]]
                    rows.append(self._logits(seen, int(plan.token_ids[row])))
        return np.array(rows, np.float32).reshape(len(rows), self.n_vocab)

    def _logits(self, seen, token):
        if token == self.poisoned_token:
            return np.full(self.n_vocab, np.nan, np.float32)
        with np.errstate(over="ignore"):
            state = seen.sum(dtype=np.uint64)
            values = scramble(state + _MIX * np.arange(1, self.n_vocab + 1, dtype=np.uint64))
        return (values >> np.uint64(40)).astype(np.float32) / np.float32(2**24) * 6


def tiny_config(
    *,
    block_tokens=8,
    prefix_cache=True,
    batch=16,
    step_tokens=64,
    queue=100,
    max_ms=500.0,
    n_ctx=None,
    kv_bytes=None,
):
    """An EngineConfig in short words."""
    return EngineConfig(
        max_sequence_length=n_ctx,
        cache=CacheConfig(block_tokens=block_tokens, prefix_cache=prefix_cache, kv_bytes=kv_bytes),
        scheduler=SchedulerConfig(
            max_batch_size=batch,
            max_step_tokens=step_tokens,
            max_queue=queue,
            max_step_ms=max_ms,
        ),
    )


def hash_engine(*, n_blocks=200, n_ctx=256, clock=None, sampler=None, **config):
    """An engine on a HashModel, checking its invariants after every step."""
    config = tiny_config(**config)
    model = HashModel(n_blocks, config.cache.block_tokens, n_ctx)
    engine = Engine(
        model,
        sampler or Sampler(N_VOCAB),
        config,
        check_invariants=True,
        **({"clock": clock} if clock else {}),
    )
    return engine, model


class LoadedTinyModel:
    """A model file on a backend, for any number of engines."""

    def __init__(self, path, backend):
        self.backend = backend
        self.model = load_model(path, backend)

    def runner(self, *, n_blocks=200, n_ctx=256, **config):
        """A runner whose cache has `n_blocks` blocks (no more than its batch can use)."""
        spec = self.model.spec
        values = 2 * spec.n_layers * spec.n_kv_heads * spec.head_dim
        kv_bytes = int(n_blocks * values * config.get("block_tokens", 8) * 2)
        config = tiny_config(n_ctx=n_ctx, kv_bytes=kv_bytes, **config)
        return Runner(self.backend, self.model, config), config

    def engine(self, *, clock=None, **config):
        """Like hash_engine, on the model."""
        runner, config = self.runner(**config)
        engine = Engine(
            runner,
            runner.new_sampler(),
            config,
            check_invariants=True,
            **({"clock": clock} if clock else {}),
        )
        return engine, runner


def request(request_id="r", prompt=(1, 2, 3), **fields):
    """A request; fields that Request does not have go to its SamplingParams."""
    outer = {k: fields.pop(k) for k in ("eog_ids", "generated", "finished") if k in fields}
    fields = {"max_tokens": 12, "seed": 7, **fields}
    return Request(
        request_id=RequestId(request_id),
        prompt_ids=tuple(prompt),
        params=SamplingParams(**fields),
        **outer,
    )


@dataclass
class Answer:
    """What a client would have got of one choice."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[object] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@dataclass
class Collected:
    """All that an engine said, checked for order: nothing missing, repeated or after the end."""

    answers: dict[tuple[str, int], Answer] = field(default_factory=dict)
    started: dict[str, int] = field(default_factory=dict)
    errors: dict[str, RocmForgeError] = field(default_factory=dict)

    def resume(self, request):
        """Begin where a request was before a restart."""
        for choice, ids in enumerate(request.generated):
            self.answers[request.request_id, choice] = Answer(list(ids), [None] * len(ids))

    def take(self, output):
        for started in output.started:
            assert started.request_id not in self.started
            assert started.queue_wait_s >= 0
            self.started[started.request_id] = started.cached_tokens
        for token in output.tokens:
            answer = self.answers.setdefault((token.request_id, token.choice), Answer())
            assert token.request_id in self.started
            assert token.request_id not in self.errors
            assert answer.finish_reason is None
            assert token.index == len(answer.token_ids)
            answer.token_ids.append(token.token_id)
            answer.logprobs.append((token.logprob, token.top_logprobs))
            answer.finish_reason = token.finish_reason
        for failed in output.failed:
            assert failed.request_id not in self.errors
            self.errors[failed.request_id] = failed.error.to_error()


def drain(engine, collected=None, max_steps=10_000):
    """Step until nothing is left to do; what came out. No block may be in use then."""
    collected = collected or Collected()
    for _ in range(max_steps):
        if not engine.has_work:
            break
        collected.take(engine.step())
    assert not engine.has_work
    assert_idle(engine)
    return collected


def assert_idle(engine):
    """The integrity of an engine without work: every block is free or remembered by the prefix
    cache alone.
    """
    engine.check()
    stats = engine.stats()
    assert (stats.n_running, stats.n_waiting, stats.blocks_used) == (0, 0, 0)


def answer_alone(make_engine, request):
    """What each choice of `request` says in an engine of its own: list of Answers by choice."""
    engine, _ = make_engine()
    engine.submit(request)
    collected = drain(engine)
    assert not collected.errors
    return [collected.answers[request.request_id, c] for c in range(request.params.n)]
