"""Asks llama.cpp (llama-cpp-python) for the logits of the tiny random models."""

from __future__ import annotations

import tempfile
from pathlib import Path

import llama_cpp
import numpy as np

from tests.support.random_model_cases import Case
from tests.support.random_models import write_case

ORACLE = "llama.cpp through llama-cpp-python"
VERSION = llama_cpp.__version__
_F32 = llama_cpp.GGML_TYPE_F32


def logits(case: Case) -> np.ndarray:
    """float32 [R, V] at the case's positions: one thread, all positions in one batch, keys and
    values kept in F32."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_case(Path(folder) / "model.gguf", case)
        model = llama_cpp.Llama(
            str(path),
            n_ctx=case.n_ctx,
            n_batch=case.n_ctx,
            n_ubatch=case.n_ctx,
            n_threads=1,
            n_threads_batch=1,
            n_gpu_layers=0,
            logits_all=True,
            type_k=_F32,
            type_v=_F32,
            flash_attn=False,
            verbose=False,
        )
        model.eval(case.token_ids)
        found = np.array(model.scores[case.positions])
        model.close()
    return found
