"""`DecoderSpec`: what a family of decoder-only transformers is, in plain numbers and flags.

`families.py` makes one from GGUF metadata; `decoder.py` runs any of them. Tensor names are GGUF's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rocmforge.backends.ops import RopeKind


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Context extension, as GGUF's `rope.scaling.*` says.

    kind `linear` divides positions by factor; `yarn` is Peng et al. 2023 with the four usual
    constants; llama 3's own scaling needs no kind: its per-frequency factors come as the tensor
    `rope_freqs.weight`; `longrope` picks one of two factor tensors by the context length.
    """

    kind: Literal["none", "linear", "yarn", "longrope"] = "none"
    factor: float = 1.0
    original_context_length: int = 0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    extrapolation_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """A decoder: L layers of (norm, attention, residual, norm, FFN, residual), a last norm, a head.

    Sizes: E model dim, H query heads, K kv heads, D head dim, F ffn dim, V vocab, L layers.
    """

    architecture: str
    n_layers: int
    n_embd: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_ff: int
    n_vocab: int
    n_ctx_train: int
    norm_eps: float
    rope_kind: RopeKind
    rope_dim: int
    rope_base: float
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    attention_scale: float = 0.0
    """What q·k is multiplied with; 0 means 1/sqrt(D)."""
    qkv_bias: bool = False
    qk_norm: bool = False
    """RMSNorm over each head's D values of q and k, before RoPE (qwen3)."""
    output_bias: bool = False
    """Bias on attn_output (some llama files have one)."""
    ffn_bias: bool = False
    sliding_window: int = 0
    """Keys a query sees, itself included; 0 means all."""
    tied_embeddings: bool = False
    has_rope_freqs: bool = False
    """The file has `rope_freqs.weight` (llama 3 scaling): f32 [rope_dim / 2] divisors of the
    frequencies.
    """

    @property
    def scale(self) -> float:
        """The factor on q·k."""
        return self.attention_scale or float(self.head_dim) ** -0.5
