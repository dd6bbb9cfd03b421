"""Logits of every position: the reference's, whatever the length, and the generator's own."""

from __future__ import annotations

import numpy as np
import pytest

import rocmforge
from rocmforge.api import logits as logits_module
from rocmforge.backends.ops import KvGeometry, StepLimits
from rocmforge.backends.reference import ReferenceBackend
from rocmforge.engine.step_plan import StepPlan
from rocmforge.errors import ContextLengthExceeded, InvalidRequest
from rocmforge.models.loading import load_model
from rocmforge.request import SamplingParams


def some_ids(model, n, seed=0):
    return np.random.default_rng(seed).integers(0, model.n_vocab, n).tolist()


def reference_logits(path, token_ids):
    """float32 [T, V] from one step of the numpy reference."""
    backend, n = ReferenceBackend(), len(token_ids)
    model = load_model(path, backend)
    spec = model.spec
    kv = KvGeometry(
        n_layers=spec.n_layers,
        n_kv_heads=spec.n_kv_heads,
        head_dim=spec.head_dim,
        n_blocks=1,
        block_tokens=n,
        kv_type="f16",
    )
    limits = StepLimits(max_tokens=n, max_sequences=1, max_rows=n, max_blocks_per_sequence=1)
    rows = np.arange(n, dtype=np.int32)
    return backend.create_program(model.forward, kv, limits).run(
        StepPlan(
            token_ids=np.array(token_ids, np.int32),
            positions=rows,
            query_start=np.array([0, n], np.int32),
            context_len=np.array([n], np.int32),
            block_tables=np.zeros((1, 1), np.int32),
            logits_rows=rows,
        )
    )


def test_logits_are_the_reference_s_at_every_position(tiny, tiny_path):
    ids = some_ids(tiny, 70)
    logits = tiny.logits(ids)
    assert logits.shape == (70, tiny.n_vocab)
    assert logits.dtype == np.float32
    expected = reference_logits(tiny_path, ids).astype(np.float64)
    error = ((logits - expected) ** 2).mean(axis=1) / (expected**2).mean(axis=1)
    # The bound for float weights: rounding to the f16 cache flips a few last bits (2^-11 relative
    # each), which is far below 1e-3 of the values and so below 1e-6 of their squares.
    assert error.max() < 1e-6, f"worst at position {error.argmax()}"


def test_rows_do_not_depend_on_length_chunks_or_what_ran_before(tiny, tiny_path, monkeypatch):
    ids = some_ids(tiny, tiny.n_ctx)
    whole = tiny.logits(ids)
    assert (tiny.logits(ids[:100]) == whole[:100]).all()
    tiny.generate("hello world", SamplingParams(max_tokens=5))
    assert (tiny.logits(np.array(ids)) == whole).all()
    monkeypatch.setattr(logits_module, "MAX_CHUNK_TOKENS", 7)
    with rocmforge.load(tiny_path, threads=1) as other:
        # Short first: the cache has to grow.
        assert (other.logits(ids[:3]) == whole[:3]).all()
        assert (other.logits(ids[:200]) == whole[:200]).all()


def test_large_vocabularies_run_in_smaller_chunks(tiny_path, monkeypatch):
    monkeypatch.setattr(logits_module, "_CHUNK_BYTES", 1)
    with rocmforge.load(tiny_path) as model:
        assert model.logits([5, 6, 7]).shape == (3, model.n_vocab)


def test_generation_follows_the_logits(tiny):
    prompt = some_ids(tiny, 40, seed=1)
    params = SamplingParams(temperature=0.0, max_tokens=20, logprobs=1, ignore_eos=True)
    result = tiny.generate(prompt, params)
    logits = tiny.logits([*prompt, *result.token_ids])[len(prompt) - 1 : -1].astype(np.float64)
    assert result.token_ids == tuple(logits.argmax(axis=1))
    shifted = logits - logits.max(axis=1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    for scored, row in zip(result.logprobs, expected, strict=True):
        # float64 sums of V exponentials: V · 2^-53 relative, and a log of order ten.
        assert scored.logprob == pytest.approx(row[scored.token_id], abs=1e-9)
        assert scored.top[0].token_id == scored.token_id


def test_logits_need_no_tokenizer(bare):
    assert bare.logits(range(bare.n_ctx)).shape == (bare.n_ctx, bare.n_vocab)


def test_bad_ids_are_refused(tiny):
    for ids, error, message in (
        ([], InvalidRequest, "at least one"),
        ([0, tiny.n_vocab], InvalidRequest, f"{tiny.n_vocab} is not in the vocabulary"),
        ([-1], InvalidRequest, "-1 is not in the vocabulary"),
        ([0.0], InvalidRequest, "integers"),
        (np.zeros((2, 2), np.int32), InvalidRequest, "integers"),
        ([0] * (tiny.n_ctx + 1), ContextLengthExceeded, "n_ctx"),
    ):
        with pytest.raises(error, match=message):
            tiny.logits(ids)
