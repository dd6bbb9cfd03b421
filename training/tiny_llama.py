"""The embedded model as a torch module: a small llama decoder with tied embeddings.

RoPE rotates adjacent pairs (x0, x1), (x2, x3), … as llama.cpp does for the architecture `llama`, so
that the exported attention weights need no permutation. Attribute names are GGUF tensor names.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ModelShape:
    """Every number that fixes the weights' shapes and the forward pass."""

    vocab_size: int = 1536
    width: int = 256
    layer_count: int = 4
    head_count: int = 4
    kv_head_count: int = 2
    ffn_width: int = 768
    context_length: int = 4096
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.head_count

    def to_dict(self) -> dict[str, int | float]:
        """Plain values, for a checkpoint."""
        return asdict(self)


def rope_tables(shape: ModelShape, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every (position, pair) angle, each [length, head_width / 2]."""
    pairs = torch.arange(0, shape.head_width, 2, dtype=torch.float32)
    frequencies = shape.rope_theta ** (-pairs / shape.head_width)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate adjacent pairs of x [B, T, H, D] by the tables' angles [T, D / 2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


@dataclass
class LayerCache:
    """Keys and values of one layer so far, each [B, K, T, D]; filled by generation only."""

    keys: Tensor | None = None
    values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the new keys and values and return all of them."""
        if self.keys is not None and self.values is not None:
            keys = torch.cat((self.keys, keys), dim=2)
            values = torch.cat((self.values, values), dim=2)
        self.keys, self.values = keys, values
        return keys, values


class Layer(nn.Module):
    """One pre-norm decoder layer: grouped-query attention, then SwiGLU."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_head_count * shape.head_width
        self.attn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_v = nn.Linear(shape.width, kv_width, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.ffn_gate = nn.Linear(shape.width, shape.ffn_width, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.ffn_width, bias=False)
        self.ffn_down = nn.Linear(shape.ffn_width, shape.width, bias=False)

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor, cache: LayerCache | None) -> Tensor:
        """Causal attention over x [B, T, E], and over the cached positions before it."""
        batch, length, _ = x.shape
        q = self.attn_q(x).view(batch, length, self.shape.head_count, -1)
        k = self.attn_k(x).view(batch, length, self.shape.kv_head_count, -1)
        v = self.attn_v(x).view(batch, length, self.shape.kv_head_count, -1).transpose(1, 2)
        q = apply_rope(q, cos, sin).transpose(1, 2)  # [B, H, T, D]
        k = apply_rope(k, cos, sin).transpose(1, 2)  # [B, K, T, D]
        if cache is not None:
            k, v = cache.append(k, v)
        groups = self.shape.head_count // self.shape.kv_head_count
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        return self.attn_output(out.transpose(1, 2).reshape(batch, length, -1))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: LayerCache | None) -> Tensor:
        """x [B, T, E] to x [B, T, E]."""
        x = x + self.attention(self.attn_norm(x), cos, sin, cache)
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


class TinyLlama(nn.Module):
    """The whole decoder; the output matrix is the embedding."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab_size, shape.width)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layer_count))
        self.output_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        cos, sin = rope_tables(shape, shape.context_length)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)
        self.initialise()

    def initialise(self) -> None:
        """Small normal weights; what writes to the residual stream is scaled down by the depth."""
        residual_std = 0.04 / (2 * self.shape.layer_count) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                writes_residual = "attn_output" in name or "ffn_down" in name
                nn.init.normal_(parameter, std=residual_std if writes_residual else 0.04)

    def hidden(self, ids: Tensor, start: int = 0, caches: list[LayerCache] | None = None) -> Tensor:
        """Normalised last hidden states [B, T, E] of ids [B, T] that begin at position `start`."""
        end = start + ids.shape[1]
        cos, sin = self.rope_cos[start:end], self.rope_sin[start:end]
        x = self.token_embd(ids)
        for index, layer in enumerate(self.blk):
            x = layer(x, cos, sin, caches[index] if caches else None)
        return self.output_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., E]."""
        return F.linear(hidden, self.token_embd.weight)

    def new_caches(self) -> list[LayerCache]:
        """Empty caches for one generation."""
        return [LayerCache() for _ in self.blk]

    def parameter_count(self) -> int:
        """Number of trained values; the tied output matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())
