"""The weights and files of the tiny random models, the same on every machine.

`write_case` writes a case as a GGUF file; an oracle gets the same weights from `case_tensors`, and
the same facts from the `Case`. Weights are integers from Philox, scaled: no libm, no order of
summation, no encoder has a say in them. Quantised matrices are random blocks, so every field of a
block takes every value.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rocmforge.gguf.writer import GGUFWriter
from rocmforge.quant.encode import encode
from rocmforge.quant.formats import GGMLType, row_bytes
from tests.support.random_model_cases import N_LAYERS, N_VOCAB, NORM_EPS, Case, random_integers


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the file holds it; `shape` in numpy order."""

    type: GGMLType
    shape: tuple[int, ...]
    data: bytes


def case_tensors(case: Case) -> dict[str, StoredTensor]:
    """GGUF name → tensor, in the file's order of rows."""
    e, f, d = case.n_embd, case.n_ff, case.head_dim
    q, k = case.n_heads * d, case.n_kv_heads * d
    score, branch = case.score_gain, case.branch_gain
    tensors = {"token_embd.weight": _matrix(case, "token_embd.weight", N_VOCAB, e, math.sqrt(e))}
    for layer in range(N_LAYERS):
        prefix = f"blk.{layer}."
        for name, rows, cols, gain in (
            ("attn_q", q, e, score),
            ("attn_k", k, e, score),
            ("attn_v", k, e, branch),
            ("attn_output", e, q, branch),
            ("ffn_gate", f, e, branch),
            ("ffn_up", f, e, branch),
            ("ffn_down", e, f, branch),
        ):
            full = f"{prefix}{name}.weight"
            tensors[full] = _matrix(case, full, rows, cols, gain)
        tensors |= {prefix + name: t for name, t in _vectors(case, prefix).items()}
    tensors["output_norm.weight"] = _vector(case, "output_norm.weight", e, 1.0)
    if not case.tied:
        tensors["output.weight"] = _matrix(case, "output.weight", N_VOCAB, e, 2.0)
    return tensors | _rope_tensors(case)


def _vectors(case: Case, prefix: str) -> dict[str, StoredTensor]:
    """One layer's norms and biases."""
    e, f, d = case.n_embd, case.n_ff, case.head_dim
    q, k = case.n_heads * d, case.n_kv_heads * d
    sizes: dict[str, tuple[int, float]] = {
        "attn_norm.weight": (e, 1.0),
        "ffn_norm.weight": (e, 1.0),
    }
    if case.qkv_bias:
        sizes |= {"attn_q.bias": (q, 0.0), "attn_k.bias": (k, 0.0), "attn_v.bias": (k, 0.0)}
    if case.biases:
        sizes |= {"attn_output.bias": (e, 0.0), "ffn_down.bias": (e, 0.0)}
        sizes |= {"ffn_gate.bias": (f, 0.0), "ffn_up.bias": (f, 0.0)}
    if case.family == "qwen3":
        sizes |= {"attn_q_norm.weight": (d, 1.4), "attn_k_norm.weight": (d, 1.4)}
    return {name: _vector(case, prefix + name, n, mean) for name, (n, mean) in sizes.items()}


def _rope_tensors(case: Case) -> dict[str, StoredTensor]:
    """The divisors of the frequencies that the file carries, for those scalings that need them."""
    kind = None if case.rope_scaling is None else case.rope_scaling.kind
    if kind == "llama3":
        return {"rope_freqs.weight": _stored_vector(llama3_factors(case))}
    if kind == "longrope":
        short, long = longrope_factors(case)
        return {
            "rope_factors_long.weight": _stored_vector(long),
            "rope_factors_short.weight": _stored_vector(short),
        }
    return {}


LLAMA3_LOW, LLAMA3_HIGH = 1.0, 4.0


def llama3_factors(case: Case) -> np.ndarray:
    """float32 [D / 2]: what llama.cpp's convert_hf_to_gguf.py makes of llama 3's rope_scaling."""
    scaling = case.rope_scaling
    assert scaling is not None
    factors = []
    for i in range(0, case.head_dim, 2):
        wavelength = 2 * math.pi * case.rope_base ** (i / case.head_dim)
        if wavelength < scaling.original_context / LLAMA3_HIGH:
            factors.append(1.0)
        elif wavelength > scaling.original_context / LLAMA3_LOW:
            factors.append(scaling.factor)
        else:
            smooth = (scaling.original_context / wavelength - LLAMA3_LOW) / (
                LLAMA3_HIGH - LLAMA3_LOW
            )
            factors.append(1 / ((1 - smooth) / scaling.factor + smooth))
    return np.array(factors, np.float32)


def longrope_factors(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(short, long) divisors, float32 [D / 2] each."""
    steps = np.arange(case.head_dim // 2, dtype=np.float32)
    return 1 + steps / 16, 1 + steps / 2


def _normal(key: str, n: int) -> np.ndarray:
    """n float64 of mean 0 and variance 1, nearly normal: the sum of four 16-bit uniforms."""
    parts = random_integers(key, n)[:, None] >> np.array([0, 16, 32, 48], np.uint64) & np.uint64(
        0xFFFF
    )
    total = parts.astype(np.int64).sum(axis=1)
    return (total - 2 * 65535) / (65536 / math.sqrt(3))


def _key(case: Case, name: str) -> str:
    return f"{case.name} {case.seed} {name}"


# Those that would drown in what they are added to.
_SPREADS = {"attn_q.bias": 1.0, "attn_k.bias": 1.0, "attn_output.bias": 1.2, "ffn_down.bias": 1.2}


def _vector(case: Case, name: str, n: int, mean: float) -> StoredTensor:
    spread = next((s for end, s in _SPREADS.items() if name.endswith(end)), 0.5)
    return _stored_vector((mean + spread * _normal(_key(case, name), n)).astype(np.float32))


def _stored_vector(values: np.ndarray) -> StoredTensor:
    return StoredTensor(GGMLType.F32, values.shape, encode(GGMLType.F32, values))


def _matrix(case: Case, name: str, rows: int, cols: int, gain: float) -> StoredTensor:
    """Values of mean 0 and standard deviation gain / √cols."""
    kind, deviation = GGMLType[case.type], gain / math.sqrt(cols)
    key = _key(case, name)
    if case.is_float:
        values = (_normal(key, rows * cols) * deviation).astype(np.float32)
        return StoredTensor(kind, (rows, cols), encode(kind, values.reshape(rows, cols)))
    n_bytes = rows * row_bytes(kind, cols)
    raw = random_integers(key, -(-n_bytes // 8)).astype("<u8").view(np.uint8)[:n_bytes].copy()
    _set_scales(raw.reshape(-1, _BLOCKS[case.type].n_bytes), case.type, deviation, key)
    return StoredTensor(kind, (rows, cols), raw.tobytes())


@dataclass(frozen=True)
class _Block:
    """`scale_at`: byte of the f16 scale d; `spread`: the standard deviation of values over d when
    all other bytes are random; `minimum`: dmin / d, for formats that have one after d."""

    n_bytes: int
    scale_at: int
    spread: float
    minimum: float = 0.0


# Uniform integers 0 … n - 1 have the variance (n² - 1) / 12, those of 0 … 63 the mean square 1333.
# Q4_K: sc · (q - 7.5) has √(1333 · 21.25) = 168; the minima's low bits add a little.
_BLOCKS = {
    "Q8_0": _Block(34, 0, 73.9),
    "Q4_0": _Block(18, 0, 4.64),
    "Q5_0": _Block(22, 0, 9.25),
    "Q4_K": _Block(144, 0, 173.0, 7.5),
    "Q5_K": _Block(176, 0, 347.0, 15.5),
    "Q6_K": _Block(210, 208, 1365.0),
}


def _set_scales(blocks: np.ndarray, type: str, deviation: float, key: str) -> None:
    """Give each block of bytes a scale of its own, of either sign, between 0.5 and 1.5 times the
    one that makes the wanted deviation."""
    block = _BLOCKS[type]
    picks = random_integers(key + " scales", len(blocks))
    strength = 0.5 + (picks >> np.uint64(44)).astype(np.float64) / 2**20
    sign = 1.0 - 2.0 * (picks & np.uint64(1)).astype(np.float64)
    scale = strength * sign * (deviation / block.spread)
    at = block.scale_at
    blocks[:, at : at + 2] = scale.astype("<f2")[:, None].view(np.uint8)
    if block.minimum:
        # The six-bit minima are the scales, but for their low bits: values have a mean near 0.
        blocks[:, 8:12] ^= (blocks[:, 8:12] ^ blocks[:, 4:8]) & 0xF8
        low = blocks[:, 12:16] & 0x0F
        blocks[:, 12:16] = low | (low << 4 ^ blocks[:, 12:16] & 0x30)
        blocks[:, at + 2 : at + 4] = (scale * block.minimum).astype("<f2")[:, None].view(np.uint8)


def case_metadata(case: Case) -> dict[str, Any]:
    """All metadata of the file: no tokenizer, which llama.cpp calls `no_vocab`."""
    prefix = case.architecture
    values: dict[str, Any] = {
        "block_count": N_LAYERS,
        "embedding_length": case.n_embd,
        "feed_forward_length": case.n_ff,
        "context_length": case.n_ctx,
        "vocab_size": N_VOCAB,
        "attention.head_count": case.n_heads,
        "attention.head_count_kv": case.n_kv_heads,
        "attention.key_length": case.head_dim,
        "attention.value_length": case.head_dim,
        "attention.layer_norm_rms_epsilon": NORM_EPS,
        "rope.dimension_count": case.head_dim,
        "rope.freq_base": case.rope_base,
    }
    if case.window:
        values["attention.sliding_window"] = case.window
    scaling = case.rope_scaling
    if scaling is not None and scaling.kind != "llama3":
        values["rope.scaling.type"] = scaling.kind
        values["rope.scaling.original_context_length"] = scaling.original_context
    if scaling is not None and scaling.kind in ("linear", "yarn"):
        values["rope.scaling.factor"] = scaling.factor
    if scaling is not None and scaling.kind == "longrope":
        values["rope.scaling.attn_factor"] = longrope_attention_factor(case)
    facts = {"general.architecture": prefix, "tokenizer.ggml.model": "no_vocab"}
    return facts | {f"{prefix}.{key}": value for key, value in values.items()}


def longrope_attention_factor(case: Case) -> float:
    """As convert_hf_to_gguf.py computes it from the two context lengths."""
    scaling = case.rope_scaling
    assert scaling is not None
    stretch = case.n_ctx / scaling.original_context
    return math.sqrt(1 + math.log(stretch) / math.log(scaling.original_context))


def write_case(path: Path, case: Case) -> Path:
    """Write the model file."""
    writer = GGUFWriter(path)
    for key, value in case_metadata(case).items():
        writer.add(key, value)
    for name, tensor in case_tensors(case).items():
        writer.add_tensor(name, tensor.shape, tensor.type, tensor.data)
    writer.write()
    return path


def weights_sha256(case: Case) -> str:
    """Which weights a golden was made with."""
    digest = hashlib.sha256()
    for name, tensor in case_tensors(case).items():
        digest.update(name.encode())
        digest.update(tensor.data)
    return digest.hexdigest()
