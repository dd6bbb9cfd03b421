"""Tiny random models: one case per family, feature of the decoder and tensor format.

tests/support/random_models.py makes their weights and writes their files. The gains are large on
purpose: attention scores spread over several units and each branch is about as large as the
residual stream it is added to, so that no operation can be left out unnoticed
(tests/golden/test_mutations.py).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.rounding import ACTIVATION_BLOCKS

N_LAYERS = 2
N_VOCAB = 64
NORM_EPS = 1e-5
FLOAT_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class RopeScaling:
    """Context extension; `kind` as transformers names it."""

    kind: str
    factor: float
    original_context: int = 32


@dataclass(frozen=True)
class Case:
    """A model and a prompt. Sizes are named as in rocmforge/models/spec.py."""

    name: str
    family: str = "llama"
    """llama, mistral, qwen2 or qwen3: the transformers model."""
    architecture: str = "llama"
    """The file's general.architecture."""
    n_embd: int = 64
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 16
    n_ff: int = 96
    n_ctx: int = 256
    n_tokens: int = 36
    rope_base: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    biases: bool = False
    """Biases on attention and FFN (llama), beyond those that qwen2 always has."""
    window: int = 0
    tied: bool = False
    type: str = "F32"
    score_gain: float = 1.6
    """Of q and k."""
    branch_gain: float = 1.6
    """Of the other matrices of a layer."""
    in_llama_cpp: bool = True
    """Whether llama.cpp computes this file as transformers does."""
    seed: int = 0

    @property
    def is_float(self) -> bool:
        """Whether matrices are plain numbers, not blocks."""
        return self.type in FLOAT_TYPES

    @property
    def is_rounded(self) -> bool:
        """Whether we round activations: for the formats that have kernels of their own."""
        return self.type in ACTIVATION_BLOCKS

    @property
    def qkv_bias(self) -> bool:
        """Whether q, k and v have biases."""
        return self.biases or self.family == "qwen2"

    @property
    def token_ids(self) -> list[int]:
        """The prompt."""
        raw = random_integers(f"{self.name} prompt", self.n_tokens)
        return (raw % np.uint64(N_VOCAB)).astype(int).tolist()

    @property
    def positions(self) -> list[int]:
        """Whose logits are compared: five, spread evenly, the last one among them."""
        last = self.n_tokens - 1
        return [last * (i + 1) // 5 for i in range(5)]


# Gains for cases where somebody rounds activations: the noise of that grows with every gain.
GENTLE: dict[str, Any] = {"score_gain": 1.0, "branch_gain": 0.8}


def _quantised(family: str, type: str, **fields: Any) -> Case:
    architecture = "llama" if family == "llama" else family
    # Rows of whole blocks.
    sizes = {"n_embd": 256, "n_ff": 256, "head_dim": 64} if type.endswith("_K") else {}
    name = f"{family}-{type.lower()}" + ("-tied" if fields.get("tied") else "")
    return Case(
        name,
        family=family,
        architecture=architecture,
        type=type,
        n_tokens=20,
        **(sizes | GENTLE | fields),
    )


CASES = (
    Case("llama-mha", n_kv_heads=4),
    Case("llama-gqa", n_heads=8),
    Case("llama-one-kv-head", n_kv_heads=1),
    Case("llama-wide-heads", head_dim=24),
    Case("llama-tied", tied=True),
    # Longer than the pieces in which kernels walk the keys.
    Case("llama-long", n_tokens=150),
    Case("llama-biases", biases=True, seed=4),
    Case("llama-linear", rope_scaling=RopeScaling("linear", 4.0)),
    Case("llama-yarn", head_dim=32, score_gain=1.0, rope_scaling=RopeScaling("yarn", 64.0)),
    Case("llama-llama3", head_dim=32, rope_scaling=RopeScaling("llama3", 8.0)),
    Case("llama-longrope", n_ctx=2048, score_gain=1.0, rope_scaling=RopeScaling("longrope", 64.0)),
    # llama.cpp ignores the window of llama files, and knows no architecture of mistral's own.
    Case("mistral-window", family="mistral", window=5, in_llama_cpp=False),
    Case(
        "mistral-own",
        family="mistral",
        architecture="mistral",
        head_dim=24,
        window=6,
        in_llama_cpp=False,
    ),
    Case("mistral", family="mistral", rope_base=1e6),
    Case("qwen2", family="qwen2", architecture="qwen2", rope_base=1e6),
    Case("qwen2-tied", family="qwen2", architecture="qwen2", tied=True),
    Case(
        "qwen2-yarn",
        family="qwen2",
        architecture="qwen2",
        score_gain=1.0,
        rope_scaling=RopeScaling("yarn", 64.0),
    ),
    Case("qwen3", family="qwen3", architecture="qwen3", head_dim=32, rope_base=1e6),
    Case("qwen3-tied", family="qwen3", architecture="qwen3", n_kv_heads=4, tied=True),
    Case("llama-f16", type="F16", **GENTLE),
    Case("llama-bf16", type="BF16", **GENTLE),
    # A type without kernels: decoded when it is loaded.
    _quantised("llama", "Q5_0"),
    *(_quantised("llama", name) for name in ("Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K")),
    _quantised("llama", "Q8_0", tied=True, branch_gain=1.2),
    _quantised("qwen2", "Q4_K"),
    _quantised("qwen3", "Q6_K"),
    _quantised("qwen3", "Q4_0"),
)


def random_integers(key: str, n: int) -> np.ndarray:
    """n random uint64; the stream of a bit generator never changes between numpy versions."""
    return np.random.Philox(key=zlib.crc32(key.encode())).random_raw(n)
