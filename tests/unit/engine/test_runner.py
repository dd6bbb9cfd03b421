"""A model file, the cache's size, and the paged forward against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from rocmforge.backends.ops import KvGeometry, StepLimits
from rocmforge.backends.reference import ReferenceBackend
from rocmforge.engine.step_plan import StepPlan
from rocmforge.errors import InvalidCacheConfiguration
from tests.support.gguf_files import write_tiny_model
from tests.support.tiny_engine import LoadedTinyModel, drain, request


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def loaded(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path, request.param, n_ctx=128)
    return LoadedTinyModel(path, ReferenceBackend())


def plain_logits(loaded, token_ids):
    """Logits of every position, from one step over one block: float32 [T, V]."""
    n = len(token_ids)
    spec = loaded.model.spec
    program = loaded.backend.create_program(
        loaded.model.forward,
        KvGeometry(
            n_layers=spec.n_layers,
            n_kv_heads=spec.n_kv_heads,
            head_dim=spec.head_dim,
            n_blocks=1,
            block_tokens=n,
            kv_type="f16",
        ),
        StepLimits(max_tokens=n, max_sequences=1, max_rows=n, max_blocks_per_sequence=1),
    )
    rows = np.arange(n, dtype=np.int32)
    return program.run(
        StepPlan(
            token_ids=np.array(token_ids, np.int32),
            positions=rows,
            query_start=np.array([0, n], np.int32),
            context_len=np.array([n], np.int32),
            block_tables=np.zeros((1, 1), np.int32),
            logits_rows=rows,
        )
    )


def test_chunks_blocks_and_batches_give_the_model_s_own_logprobs(loaded):
    engine, _ = loaded.engine(step_tokens=20, batch=4)
    prompts = [list(range(3, 33)), list(range(40, 49)), [7] * 17]
    for i, prompt in enumerate(prompts):
        engine.submit(request(str(i), prompt=prompt, temperature=0.0, logprobs=0, max_tokens=10))
    collected = drain(engine)
    for i, prompt in enumerate(prompts):
        answer = collected.answers[str(i), 0]
        logits = plain_logits(loaded, prompt + answer.token_ids)[len(prompt) - 1 : -1]
        wide = logits.astype(np.float64)
        logprobs = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
        assert answer.token_ids == logits.argmax(axis=1).tolist()
        got = [logprob for logprob, _ in answer.logprobs]
        expected = logprobs[np.arange(len(got)), answer.token_ids]
        np.testing.assert_allclose(got, expected, atol=2e-4)


def test_says_what_runs(loaded):
    runner, config = loaded.runner(n_blocks=6, n_ctx=100, batch=3)
    facts = runner.facts(load_s=1.5)
    spec = loaded.model.spec
    block_bytes = 2 * spec.n_layers * spec.n_kv_heads * spec.head_dim * 8 * 2
    assert (facts.backend, facts.device, facts.isa) == ("reference", "cpu", "numpy")
    assert (facts.n_blocks, facts.block_tokens, facts.kv_bytes) == (6, 8, 6 * block_bytes)
    # The cache holds less than what is configured: the facts say so.
    assert (facts.n_ctx, facts.n_ctx_train) == (48, 128)
    assert facts.kv_type == "f16"
    assert facts.weight_types["F32"] > 10
    assert facts.decoded_types == {}
    assert facts.max_step_tokens == config.scheduler.max_step_tokens
    assert facts.load_s == 1.5


def test_the_model_s_own_context_is_the_limit(loaded):
    runner, _ = loaded.runner(n_ctx=4096)
    assert runner.limits.n_ctx == 128


def test_a_cache_without_a_block_is_refused(loaded):
    with pytest.raises(InvalidCacheConfiguration, match=r"cache\.kv_bytes"):
        loaded.runner(n_blocks=0.5)


def test_warm_up_leaves_no_trace(loaded):
    engine, runner = loaded.engine()
    engine.submit(request("cold", temperature=0.0))
    cold = drain(engine).answers["cold", 0]
    engine, runner = loaded.engine()
    n_tokens, elapsed_ms = runner.warm_up()
    assert n_tokens == 16
    assert elapsed_ms > 0
    engine.submit(request("warm", temperature=0.0))
    assert drain(engine).answers["warm", 0].token_ids == cold.token_ids
    engine.close()
