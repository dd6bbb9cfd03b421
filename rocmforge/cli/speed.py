"""How `rocmforge bench` measures: the engine of this process, prompts and generation apart.

Prompt: `batch` prompts of random tokens that no cache knows, until each has its first token.
Generation: the same prompts again, which the prefix cache knows now, so that all of them soon
decode together; then `n_gen` steps, each of one token for every sequence.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import count
from statistics import median

from rocmforge.clock import monotonic_s
from rocmforge.config import EngineConfig
from rocmforge.engine.engine import Engine
from rocmforge.errors import CacheCapacityExceeded, GenerationFailed, InvalidConfiguration
from rocmforge.request import Request, RequestId, SamplingParams
from rocmforge.wire.protocol import EngineFacts, TokenOutput

_SEED = 1
_WARM_UP_TOKENS = 32
# Steps until a batch whose prompts are cached decodes as one: what the cache does not know of each
# prompt is less than a block, and bench_config leaves half of every step to it.
_JOIN_BLOCKS = 2
# The limit that keeps a server responsive would cut chunks by the clock: every run differently.
_NO_STEP_LIMIT_MS = 1e9


@dataclass(frozen=True)
class Speed:
    """Medians over the repetitions, for `batch` sequences of n_prompt + n_gen tokens each."""

    batch: int
    n_prompt: int
    n_gen: int
    prompt_tokens_per_second: float
    generation_tokens_per_second: float
    generation_ms_per_step: float
    time_to_first_token_ms: float
    """Until the last of the batch has its first token."""


def bench_config(
    config: EngineConfig, n_prompt: int, n_gen: int, max_batch_size: int
) -> EngineConfig:
    """The settings of a user, with room for what is measured."""
    return replace(
        config,
        max_sequence_length=n_prompt + n_gen + _slack(config.cache.block_tokens),
        cache=replace(config.cache, prefix_cache=True),
        scheduler=replace(
            config.scheduler,
            max_batch_size=max_batch_size,
            max_step_tokens=max(config.scheduler.max_step_tokens, 2 * max_batch_size),
            max_step_ms=_NO_STEP_LIMIT_MS,
        ),
    )


def _slack(block_tokens: int) -> int:
    """Positions that sequences use up while they wait for the last to join."""
    return _JOIN_BLOCKS * block_tokens


def measure(
    engine: Engine,
    facts: EngineFacts,
    n_prompt: int,
    n_gen: int,
    batch: int,
    *,
    repetitions: int,
) -> Speed:
    """Run and time on an engine that bench_config has made room in.

    Raises InvalidConfiguration when the model's context is too short, CacheCapacityExceeded when
    the KV cache is too small.
    """
    n_positions = n_prompt + n_gen + _slack(facts.block_tokens)
    if facts.n_ctx < n_positions:
        raise InvalidConfiguration(
            f"-p {n_prompt} and -n {n_gen} need {n_positions} positions, and there are "
            f"{facts.n_ctx}; give smaller numbers"
        )
    if facts.n_blocks < batch * -(-n_positions // facts.block_tokens):
        raise _too_small()
    runs = SpeedRuns(engine, facts.n_vocab)
    _run(runs, min(n_prompt, _WARM_UP_TOKENS), 2, batch)
    times = [_run(runs, n_prompt, n_gen, batch) for _ in range(repetitions)]
    prompt_s = median(prompt_s for prompt_s, _ in times)
    generation_s = median(generation_s for _, generation_s in times)
    return Speed(
        batch=batch,
        n_prompt=n_prompt,
        n_gen=n_gen,
        prompt_tokens_per_second=batch * n_prompt / prompt_s,
        generation_tokens_per_second=batch * n_gen / generation_s,
        generation_ms_per_step=generation_s / n_gen * 1000,
        time_to_first_token_ms=prompt_s * 1000,
    )


def _too_small() -> CacheCapacityExceeded:
    return CacheCapacityExceeded(
        "the KV cache does not hold the batch; lower --batch, -p or -n, or raise "
        "engine.cache.kv_bytes"
    )


def _run(runs: SpeedRuns, n_prompt: int, n_gen: int, batch: int) -> tuple[float, float]:
    """(seconds for the prompts, seconds for n_gen tokens of every sequence)."""
    prompts = runs.new_prompts(n_prompt, batch)
    return runs.time_prompts(prompts), runs.time_generation(prompts, n_gen).seconds


@dataclass(frozen=True)
class TimedSteps:
    """How long the steps took, and the mean position of the tokens of the first."""

    seconds: float
    n_past: float


class SpeedRuns:
    """Runs on one engine; prompts are never repeated from one run to the next."""

    def __init__(self, engine: Engine, n_vocab: int) -> None:
        self._engine = engine
        self._n_vocab = n_vocab
        # Every run of the program measures the same tokens.
        self._random = random.Random(_SEED)
        self._ids = count()

    def new_prompts(self, n_prompt: int, batch: int) -> list[tuple[int, ...]]:
        """Random tokens."""
        return [tuple(self._random.choices(range(self._n_vocab), k=n_prompt)) for _ in range(batch)]

    def time_prompts(self, prompts: list[tuple[int, ...]]) -> float:
        """Seconds until all have their first token."""
        start_s = monotonic_s()
        self._submit(prompts, max_tokens=1)
        while self._engine.has_work:
            self._step()
        return monotonic_s() - start_s

    def time_generation(self, prompts: list[tuple[int, ...]], n_gen: int) -> TimedSteps:
        """n_gen steps of all sequences together, once all have started.

        Raises GenerationFailed when a step leaves one out.
        """
        ids = self._submit(prompts, max_tokens=None)
        started: set[RequestId] = set()
        n_before = 0
        while len(started) < len(ids):
            tokens = self._step()
            started.update(token.request_id for token in tokens)
            n_before += len(tokens)
        start_s = monotonic_s()
        for _ in range(n_gen):
            n_tokens = len(self._step())
            if n_tokens != len(ids):
                raise GenerationFailed(f"a step made {n_tokens} tokens of {len(ids)} sequences")
        elapsed_s = monotonic_s() - start_s
        for request_id in ids:
            self._engine.cancel(request_id)
        n_positions = sum(map(len, prompts)) + n_before - len(ids)
        return TimedSteps(elapsed_s, n_positions / len(ids))

    def _submit(self, prompts: list[tuple[int, ...]], *, max_tokens: int | None) -> list[RequestId]:
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, seed=0)
        requests = [
            Request(request_id=RequestId(f"bench-{next(self._ids)}"), prompt_ids=p, params=params)
            for p in prompts
        ]
        for request in requests:
            self._engine.submit(request)
        return [request.request_id for request in requests]

    def _step(self) -> tuple[TokenOutput, ...]:
        output = self._engine.step()
        for failed in output.failed:
            raise failed.error.to_error()
        return output.tokens
