"""Logits of a model file on a backend, and how far two sets of logits are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rocmforge.backends.ops import Backend, KvGeometry, StepLimits
from rocmforge.engine.step_plan import StepPlan
from rocmforge.models.loading import LoadedModel, load_model

BLOCK_TOKENS = 16


def nmse(values: Any, expected: Any) -> float:
    """Normalised mean squared error: Σ(values - expected)² / Σ expected²."""
    values, expected = np.asarray(values, np.float64), np.asarray(expected, np.float64)
    assert values.shape == expected.shape
    return float(((values - expected) ** 2).sum() / (expected**2).sum())


def file_logits(
    path: Path, backend: Backend, token_ids: Sequence[int], rows: Sequence[int], kv_type: str
) -> np.ndarray:
    """float32 [R, V]: logits after the positions `rows` of `token_ids`."""
    model = load_model(path, backend)
    return model_logits(model, backend, token_ids, rows, kv_type)


def model_logits(
    model: LoadedModel,
    backend: Backend,
    token_ids: Sequence[int],
    rows: Sequence[int],
    kv_type: str,
    forward: Callable[[Any], None] | None = None,
) -> np.ndarray:
    """The same for a loaded model; `forward` replaces its own."""
    n_blocks = -(-len(token_ids) // BLOCK_TOKENS)
    spec, n = model.spec, len(token_ids)
    kv = KvGeometry(
        n_layers=spec.n_layers,
        n_kv_heads=spec.n_kv_heads,
        head_dim=spec.head_dim,
        n_blocks=n_blocks,
        block_tokens=BLOCK_TOKENS,
        kv_type=kv_type,
    )
    limits = StepLimits(max_tokens=n, max_sequences=1, max_rows=n, max_blocks_per_sequence=n_blocks)
    program = backend.create_program(forward or model.forward, kv, limits)
    plan = StepPlan(
        token_ids=np.array(token_ids, np.int32),
        positions=np.arange(n, dtype=np.int32),
        query_start=np.array([0, n], np.int32),
        context_len=np.array([n], np.int32),
        # Backwards, so that a sequence's blocks do not happen to lie in order.
        block_tables=np.arange(n_blocks, dtype=np.int32)[None, ::-1].copy(),
        logits_rows=np.array(rows, np.int32),
    )
    plan.check(BLOCK_TOKENS, n_blocks)
    logits = program.run(plan).copy()
    program.close()
    return logits
