"""The one decoder: every family's forward pass, written once against the ops contract.

Shapes: T tokens, R logits rows, E model dim, H query heads, K kv heads, D head dim, F ffn dim, V
vocab.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rocmforge.backends.ops import Ops, WeightRef
from rocmforge.models.spec import DecoderSpec

Buf = TypeVar("Buf")


def required_tensors(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
    """GGUF name → shape (numpy order) of every weight that the forward pass reads."""
    embd, ff = spec.n_embd, spec.n_ff
    q_width, kv_width = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (embd,),
        "attn_q.weight": (q_width, embd),
        "attn_k.weight": (kv_width, embd),
        "attn_v.weight": (kv_width, embd),
        "attn_output.weight": (embd, q_width),
        "ffn_norm.weight": (embd,),
        "ffn_gate.weight": (ff, embd),
        "ffn_up.weight": (ff, embd),
        "ffn_down.weight": (embd, ff),
    }
    if spec.qkv_bias:
        layer |= {"attn_q.bias": (q_width,), "attn_k.bias": (kv_width,), "attn_v.bias": (kv_width,)}
    if spec.qk_norm:
        layer |= {
            "attn_q_norm.weight": (spec.head_dim,),
            "attn_k_norm.weight": (spec.head_dim,),
        }
    if spec.output_bias:
        layer["attn_output.bias"] = (embd,)
    if spec.ffn_bias:
        layer |= {"ffn_gate.bias": (ff,), "ffn_up.bias": (ff,), "ffn_down.bias": (embd,)}
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (spec.n_vocab, embd)}
    for i in range(spec.n_layers):
        tensors |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
    tensors["output_norm.weight"] = (embd,)
    if not spec.tied_embeddings:
        tensors["output.weight"] = (spec.n_vocab, embd)
    return tensors


class Decoder:
    """A spec with its weights. `inv_freq` float32 [rope_dim / 2] and `magnitude` are
    rope.frequencies()."""

    def __init__(
        self,
        spec: DecoderSpec,
        weights: Mapping[str, WeightRef],
        inv_freq: npt.NDArray[np.float32],
        magnitude: float = 1.0,
    ) -> None:
        self.spec = spec
        self._weights = weights
        self._inv_freq = inv_freq
        self._magnitude = magnitude

    def forward(self, ops: Ops[Buf]) -> None:
        """Token ids of the step → logits [R, V] of its wanted rows."""
        spec = self.spec
        x = ops.embed(self._weights["token_embd.weight"])  # [T, E]
        for i in range(spec.n_layers):
            attended = self._attention(ops, i, x)  # [T, E]
            if i == spec.n_layers - 1:
                # Nothing after the last attention looks at other rows: [T, E] → [R, E].
                x, attended = ops.select_rows(x), ops.select_rows(attended)
            x = ops.add(x, attended)
            x = ops.add(x, self._ffn(ops, i, x))
        x = ops.rms_norm(x, self._weights["output_norm.weight"], spec.norm_eps)  # [R, E]
        head = "token_embd.weight" if spec.tied_embeddings else "output.weight"
        ops.output(ops.matmul(x, self._weights[head]))  # [R, V]

    def _attention(self, ops: Ops[Buf], i: int, x: Buf) -> Buf:
        spec = self.spec
        h = ops.rms_norm(x, self._layer(i, "attn_norm.weight"), spec.norm_eps)  # [T, E]
        q = self._linear(ops, i, "attn_q", h, spec.qkv_bias)  # [T, H · D]
        k = self._linear(ops, i, "attn_k", h, spec.qkv_bias)  # [T, K · D]
        v = self._linear(ops, i, "attn_v", h, spec.qkv_bias)  # [T, K · D]
        if spec.qk_norm:
            eps = spec.norm_eps
            q = ops.head_rms_norm(q, self._layer(i, "attn_q_norm.weight"), eps, spec.n_heads)
            k = ops.head_rms_norm(k, self._layer(i, "attn_k_norm.weight"), eps, spec.n_kv_heads)
        q = self._rope(ops, q, spec.n_heads)
        k = self._rope(ops, k, spec.n_kv_heads)
        ops.kv_append(i, k, v)
        mixed = ops.attention(i, q, spec.n_heads, spec.scale, spec.sliding_window)  # [T, H · D]
        return self._linear(ops, i, "attn_output", mixed, spec.output_bias)  # [T, E]

    def _ffn(self, ops: Ops[Buf], i: int, x: Buf) -> Buf:
        spec = self.spec
        h = ops.rms_norm(x, self._layer(i, "ffn_norm.weight"), spec.norm_eps)
        gate = self._linear(ops, i, "ffn_gate", h, spec.ffn_bias)  # [T, F]
        up = self._linear(ops, i, "ffn_up", h, spec.ffn_bias)  # [T, F]
        return self._linear(ops, i, "ffn_down", ops.swiglu(gate, up), spec.ffn_bias)  # [T, E]

    def _rope(self, ops: Ops[Buf], x: Buf, n_heads: int) -> Buf:
        spec = self.spec
        return ops.rope(
            x,
            n_heads,
            spec.head_dim,
            spec.rope_dim,
            spec.rope_kind,
            self._inv_freq,
            self._magnitude,
        )

    def _linear(self, ops: Ops[Buf], i: int, name: str, x: Buf, bias: bool) -> Buf:
        return ops.matmul(
            x, self._layer(i, f"{name}.weight"), self._layer(i, f"{name}.bias") if bias else None
        )

    def _layer(self, i: int, name: str) -> WeightRef:
        return self._weights[f"blk.{i}.{name}"]
