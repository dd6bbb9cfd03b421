"""Asks transformers for the logits of the tiny random models."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import torch
import transformers

from tests.support.random_model_cases import N_LAYERS, N_VOCAB, NORM_EPS, Case
from tests.support.random_models import (
    LLAMA3_HIGH,
    LLAMA3_LOW,
    StoredTensor,
    case_tensors,
    longrope_factors,
)

ORACLE = "transformers"
VERSION = f"{transformers.__version__}, torch {torch.__version__}, gguf dequantize"
_CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


def logits(case: Case) -> np.ndarray:
    """float64 [R, V] at the case's positions, computed in float64 from the decoded weights."""
    config_class, model_class = _CLASSES[case.family]
    config = config_class(**_config(case))
    config._attn_implementation = "eager"
    model = model_class(config).to(torch.float64).eval()
    missing, unexpected = model.load_state_dict(_state(case), strict=False)
    assert not unexpected, unexpected
    assert missing == (["lm_head.weight"] if case.tied else []), missing
    model.tie_weights()
    with torch.no_grad():
        found = model(torch.tensor([case.token_ids]), use_cache=False).logits[0]
    return found[case.positions].numpy()


def _config(case: Case) -> dict[str, Any]:
    values: dict[str, Any] = {
        "vocab_size": N_VOCAB,
        "hidden_size": case.n_embd,
        "intermediate_size": case.n_ff,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": case.n_heads,
        "num_key_value_heads": case.n_kv_heads,
        "head_dim": case.head_dim,
        "max_position_embeddings": case.n_ctx,
        "rms_norm_eps": NORM_EPS,
        "tie_word_embeddings": case.tied,
        "rope_parameters": _rope_parameters(case),
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if case.family == "llama":
        values |= {"attention_bias": case.biases, "mlp_bias": case.biases}
    if case.family == "mistral":
        values["sliding_window"] = case.window or None
    return values


def _rope_parameters(case: Case) -> dict[str, Any]:
    values: dict[str, Any] = {"rope_type": "default", "rope_theta": case.rope_base}
    scaling = case.rope_scaling
    if scaling is None:
        return values
    values |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        values["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        values |= {"low_freq_factor": LLAMA3_LOW, "high_freq_factor": LLAMA3_HIGH}
    if scaling.kind == "longrope":
        short, long = longrope_factors(case)
        values |= {"short_factor": short.tolist(), "long_factor": long.tolist()}
    return values


def _state(case: Case) -> dict[str, torch.Tensor]:
    """The weights under transformers' names, with rows in its order."""
    skipped = ("rope_freqs", "rope_factors")
    return {
        _name(name): torch.from_numpy(_decoded(case, name, tensor))
        for name, tensor in case_tensors(case).items()
        if not name.startswith(skipped)
    }


def _name(name: str) -> str:
    if not name.startswith("blk."):
        stem, kind = name.rsplit(".", 1)
        return f"{_OTHER_NAMES[stem]}.{kind}"
    _, layer, stem, kind = name.split(".")
    return f"model.layers.{layer}.{_LAYER_NAMES[stem]}.{kind}"


def _decoded(case: Case, name: str, tensor: StoredTensor) -> np.ndarray:
    raw = np.frombuffer(tensor.data, np.uint8)
    kind = gguf.GGMLQuantizationType[tensor.type.name]
    values = gguf.dequantize(raw, kind).reshape(tensor.shape).astype(np.float64)
    if case.architecture in ("llama", "mistral") and ".attn_q." in name:
        values = _unpermuted(values, case.n_heads)
    if case.architecture in ("llama", "mistral") and ".attn_k." in name:
        values = _unpermuted(values, case.n_kv_heads)
    return values


def _unpermuted(values: np.ndarray, n_heads: int) -> np.ndarray:
    """Undoes what convert_hf_to_gguf.py does to the rows of llama's q and k.

    It makes (half, pair) of each head (pair, half), so that rotated pairs are neighbours.
    """
    pairs = values.reshape(n_heads, values.shape[0] // n_heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))
