"""Ways to leave out, or get wrong, one call of a model's forward.

Every variant takes the numpy ops, the model's spec and the call's arguments, and does what a
backend would do that lacks the operation or a part of it. `MutatedOps` puts one variant in the
place of one call; `calls` lists the calls of a forward with the variants that make a difference: a
bias, say, is left out only where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rocmforge.backends.reference import ReferenceOps
from rocmforge.models.spec import DecoderSpec

Variant = Callable[..., Any]


class MutatedOps:
    """Hands every call on to `ops`, except that `variant` answers the one number `index`."""

    def __init__(self, ops: ReferenceOps, spec: DecoderSpec, index: int, variant: Variant) -> None:
        self._ops, self._spec = ops, spec
        self._index, self._variant = index, variant
        self._n_calls = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._n_calls += 1
            if self._n_calls - 1 == self._index:
                return self._variant(self._ops, self._spec, *args)
            return getattr(self._ops, name)(*args)

        return call


class RecordingOps:
    """Hands every call on and keeps, in order, its name and the variants of it."""

    def __init__(self, ops: ReferenceOps, spec: DecoderSpec) -> None:
        self._ops, self._spec = ops, spec
        self.calls: list[tuple[str, dict[str, Variant]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.calls.append((name, _applicable(name, self._spec, args)))
            return getattr(self._ops, name)(*args)

        return call


def _applicable(name: str, spec: DecoderSpec, args: tuple[Any, ...]) -> dict[str, Variant]:
    return {
        title: variant
        for title, (variant, matters) in VARIANTS[name].items()
        if matters is None or matters(spec, *args)
    }


def _skipped(_ops: ReferenceOps, _spec: DecoderSpec, x: Any, *_rest: Any) -> Any:
    return x.copy()


def _other_tokens(ops: ReferenceOps, _spec: DecoderSpec, table: Any) -> Any:
    return np.roll(ops.embed(table), 1, axis=0)


def _other_rows(ops: ReferenceOps, _spec: DecoderSpec, x: Any) -> Any:
    return np.roll(ops.select_rows(x), 1, axis=0)


def _no_norm_weight(
    ops: ReferenceOps, _spec: DecoderSpec, x: Any, weight: Any, eps: float, n_heads: int = 1
) -> Any:
    wide = x.reshape(len(x), n_heads, -1).astype(np.float64)
    normed = wide / np.sqrt((wide * wide).mean(axis=2, keepdims=True) + eps)
    return normed.reshape(x.shape).astype(np.float32)


def _no_product(_ops: ReferenceOps, _spec: DecoderSpec, x: Any, weight: Any, *_bias: Any) -> Any:
    return np.zeros((len(x), weight.rows), np.float32)


def _no_bias(ops: ReferenceOps, _spec: DecoderSpec, x: Any, weight: Any, _bias: Any) -> Any:
    return ops.matmul(x, weight)


def _has_bias(_spec: DecoderSpec, _x: Any, _weight: Any, bias: Any = None) -> bool:
    return bias is not None


def _first_only(_ops: ReferenceOps, _spec: DecoderSpec, x: Any, _y: Any) -> Any:
    return x


def _second_only(_ops: ReferenceOps, _spec: DecoderSpec, _x: Any, y: Any) -> Any:
    return y.copy()


def _other_pairs(ops: ReferenceOps, _spec: DecoderSpec, *args: Any) -> Any:
    *before, kind, inv_freq, magnitude = args
    return ops.rope(*before, "neox" if kind == "norm" else "norm", inv_freq, magnitude)


def _no_magnitude(ops: ReferenceOps, _spec: DecoderSpec, *args: Any) -> Any:
    return ops.rope(*args[:-1], 1.0)


def _has_magnitude(_spec: DecoderSpec, *args: Any) -> bool:
    return bool(args[-1] != 1.0)


def _no_scaling(ops: ReferenceOps, spec: DecoderSpec, *args: Any) -> Any:
    *before, inv_freq, magnitude = args
    plain = spec.rope_base ** (-np.arange(len(inv_freq)) / len(inv_freq))
    return ops.rope(*before, plain.astype(np.float32), magnitude)


def _has_scaling(spec: DecoderSpec, *_args: Any) -> bool:
    return spec.rope_scaling.kind != "none" or spec.has_rope_freqs


def _stored(keys: bool, values: bool) -> Variant:
    def variant(ops: ReferenceOps, _spec: DecoderSpec, layer: int, k: Any, v: Any) -> None:
        ops.kv_append(layer, k if keys else 0 * k, v if values else 0 * v)

    return variant


def _no_attention(_ops: ReferenceOps, _spec: DecoderSpec, _layer: int, q: Any, *_rest: Any) -> Any:
    return np.zeros_like(q)


def _no_attention_scale(ops: ReferenceOps, _spec: DecoderSpec, *args: Any) -> Any:
    *before, _scale, window = args
    return ops.attention(*before, 1.0, window)


def _other_window(change: Callable[[int], int]) -> Variant:
    def variant(ops: ReferenceOps, _spec: DecoderSpec, *args: Any) -> Any:
        return ops.attention(*args[:-1], change(args[-1]))

    return variant


def _has_window(_spec: DecoderSpec, *args: Any) -> bool:
    return bool(args[-1])


def _other_groups(
    ops: ReferenceOps, spec: DecoderSpec, layer: int, q: Any, n_heads: int, *rest: Any
) -> Any:
    """Query head h reads kv head h % K instead of h // (H / K)."""
    head = np.arange(n_heads)
    group = n_heads // spec.n_kv_heads
    place = head % spec.n_kv_heads * group + head // spec.n_kv_heads
    heads = q.reshape(len(q), n_heads, -1)
    moved = np.empty_like(heads)
    moved[:, place] = heads
    mixed = ops.attention(layer, moved.reshape(q.shape), n_heads, *rest)
    return mixed.reshape(heads.shape)[:, place].reshape(q.shape)


def _has_groups(spec: DecoderSpec, *_args: Any) -> bool:
    return 1 < spec.n_kv_heads < spec.n_heads


def _up_only(_ops: ReferenceOps, _spec: DecoderSpec, _gate: Any, up: Any) -> Any:
    return up.copy()


def _gate_only(ops: ReferenceOps, _spec: DecoderSpec, gate: Any, up: Any) -> Any:
    return ops.swiglu(gate, np.ones_like(up))


def _no_silu(_ops: ReferenceOps, _spec: DecoderSpec, gate: Any, up: Any) -> Any:
    return gate * up


VARIANTS: dict[str, dict[str, tuple[Variant, Callable[..., bool] | None]]] = {
    "embed": {"of other tokens": (_other_tokens, None)},
    "rms_norm": {"left out": (_skipped, None), "without weight": (_no_norm_weight, None)},
    "head_rms_norm": {"left out": (_skipped, None), "without weight": (_no_norm_weight, None)},
    "matmul": {"left out": (_no_product, None), "without bias": (_no_bias, _has_bias)},
    "add": {"of the first only": (_first_only, None), "of the second only": (_second_only, None)},
    "rope": {
        "left out": (_skipped, None),
        "of other pairs": (_other_pairs, None),
        "without scaling": (_no_scaling, _has_scaling),
        "without magnitude": (_no_magnitude, _has_magnitude),
    },
    "kv_append": {
        "left out": (_stored(False, False), None),
        "without keys": (_stored(False, True), None),
        "without values": (_stored(True, False), None),
    },
    "attention": {
        "left out": (_no_attention, None),
        "without scale": (_no_attention_scale, None),
        "without window": (_other_window(lambda _: 0), _has_window),
        "with a window one too long": (_other_window(lambda n: n + 1), _has_window),
        "with other groups": (_other_groups, _has_groups),
    },
    "swiglu": {
        "without gate": (_up_only, None),
        "without up": (_gate_only, None),
        "without silu": (_no_silu, None),
    },
    "select_rows": {"of other rows": (_other_rows, None)},
    # Without it there are no logits at all, which every backend refuses.
    "output": {},
}
