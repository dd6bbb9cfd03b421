"""GGUF architectures → DecoderSpec: a few lines per family; everything in the metadata is
checked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rocmforge.errors import InvalidModelFile, TensorNotFound, UnsupportedModelFormat
from rocmforge.gguf.metadata import Metadata
from rocmforge.gguf.reader import TensorInfo
from rocmforge.models.spec import DecoderSpec, RopeScaling

MAX_LAYERS = 1024
MAX_WIDTH = 2**20
MAX_HEADS = 4096
MAX_HEAD_DIM = 1024
MAX_CONTEXT = 2**28
# Smaller ones vanish in float32 beside the square of any activation: a row of zeros divides by 0.
MIN_NORM_EPS = 1e-12
_SHOWN = 60

Tensors = Mapping[str, TensorInfo]


def decoder_spec(metadata: Metadata, tensors: Tensors) -> DecoderSpec:
    """What the file's model is.

    Raises UnsupportedModelFormat for an architecture we lack (naming the nearest that we have), and
    InvalidModelFile naming a metadata key that is missing or impossible.
    """
    architecture = metadata.str_("general.architecture")
    family = _FAMILIES.get(architecture)
    if family is None:
        near = difflib.get_close_matches(architecture[:_SHOWN], _FAMILIES, n=1, cutoff=0.3)
        hint = f"; the nearest supported one is {near[0]}" if near else ""
        raise UnsupportedModelFormat(
            f"the architecture {_shown(architecture)} is not supported{hint} "
            f"(supported: {', '.join(sorted(_FAMILIES))})"
        )
    return family(_Keys(metadata, architecture), tensors)


def _shown(text: str) -> str:
    """A string of the file for a message: it may be of any length."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"


class _Keys:
    """The metadata below one architecture's prefix, with the ranges that make sense."""

    def __init__(self, metadata: Metadata, architecture: str) -> None:
        self.metadata = metadata
        self.architecture = architecture

    def name(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def size(self, key: str, maximum: int, default: int | None = None) -> int:
        """A positive size; one value for all layers (an array must repeat it)."""
        name = self.name(key)
        value = self.metadata.get(name)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and len(value):
            return self._same(name, value, maximum)
        if value is None and default is not None:
            return default
        return self.metadata.int_(name, minimum=1, maximum=maximum)

    def _same(self, name: str, values: np.ndarray[Any, np.dtype[Any]], maximum: int) -> int:
        first = int(values[0])
        if (values != first).any():
            raise UnsupportedModelFormat(f"{name} differs between layers, which is not supported")
        if not 1 <= first <= maximum:
            raise InvalidModelFile(f"{name} is {first}, expected 1 to {maximum}")
        return first

    def number(self, key: str, default: float, minimum: float, maximum: float) -> float:
        return self.metadata.float_(self.name(key), default, minimum=minimum, maximum=maximum)


def _base(keys: _Keys, tensors: Tensors, **family: Any) -> DecoderSpec:
    """What all families have in common; `family` says what is special."""
    if keys.metadata.int_(keys.name("expert_count"), 0):
        raise UnsupportedModelFormat(
            f"{keys.architecture} with mixture of experts ({keys.name('expert_count')}) "
            "is not supported"
        )
    n_embd = keys.size("embedding_length", MAX_WIDTH)
    n_heads = keys.size("attention.head_count", MAX_HEADS)
    head_dim = keys.size("attention.key_length", MAX_HEAD_DIM, n_embd // n_heads)
    fields: dict[str, Any] = {
        "architecture": keys.architecture,
        "n_layers": keys.size("block_count", MAX_LAYERS),
        "n_embd": n_embd,
        "n_heads": n_heads,
        "n_kv_heads": keys.size("attention.head_count_kv", MAX_HEADS, n_heads),
        "head_dim": head_dim,
        "n_ff": keys.size("feed_forward_length", MAX_WIDTH),
        "n_vocab": _n_vocab(tensors),
        "n_ctx_train": keys.size("context_length", MAX_CONTEXT),
        "norm_eps": keys.metadata.float_(
            keys.name("attention.layer_norm_rms_epsilon"), minimum=MIN_NORM_EPS, maximum=1.0
        ),
        "rope_dim": keys.size("rope.dimension_count", MAX_HEAD_DIM, head_dim),
        "rope_base": keys.number("rope.freq_base", 10_000.0, 1.0, 1e15),
        "rope_scaling": _rope_scaling(keys),
        "sliding_window": keys.metadata.int_(
            keys.name("attention.sliding_window"), 0, maximum=MAX_CONTEXT
        ),
        "tied_embeddings": "output.weight" not in tensors,
        "has_rope_freqs": "rope_freqs.weight" in tensors,
        "qkv_bias": _any_layer_has(tensors, "attn_q.bias", "attn_k.bias", "attn_v.bias"),
        "output_bias": _any_layer_has(tensors, "attn_output.bias"),
        "ffn_bias": _any_layer_has(tensors, "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"),
    }
    spec = DecoderSpec(**(fields | family))
    _check(spec, keys)
    return spec


def _any_layer_has(tensors: Tensors, *names: str) -> bool:
    """Whether one is there: then all are needed in every layer, and none is silently left out."""
    return any(name.startswith("blk.") and name.endswith(names) for name in tensors)


def _check(spec: DecoderSpec, keys: _Keys) -> None:
    value_length = keys.size("attention.value_length", MAX_HEAD_DIM, spec.head_dim)
    if value_length != spec.head_dim:
        raise UnsupportedModelFormat(
            f"{keys.name('attention.value_length')} is {value_length}, the key length is "
            f"{spec.head_dim}: different ones are not supported"
        )
    if not 2 <= spec.head_dim <= MAX_HEAD_DIM or spec.n_heads % spec.n_kv_heads:
        raise InvalidModelFile(
            f"{keys.name('attention.head_count')} = {spec.n_heads} with head size {spec.head_dim} "
            f"does not go with {keys.name('attention.head_count_kv')} = {spec.n_kv_heads}"
        )
    if spec.rope_dim % 2 or spec.rope_dim > spec.head_dim:
        raise InvalidModelFile(
            f"{keys.name('rope.dimension_count')} is {spec.rope_dim}; "
            f"it must be even and at most the head size {spec.head_dim}"
        )


def _n_vocab(tensors: Tensors) -> int:
    # The table's rows, not the metadata's count: files disagree, and the table is what is indexed.
    table = tensors.get("token_embd.weight")
    if table is None:
        raise TensorNotFound(
            "the file lacks token_embd.weight; a file that holds only a vocabulary cannot be run"
        )
    if len(table.shape) != 2:
        raise InvalidModelFile(f"token_embd.weight has the shape {table.shape}, expected a matrix")
    return table.shape[0]


def _rope_scaling(keys: _Keys) -> RopeScaling:
    kind = keys.metadata.str_(keys.name("rope.scaling.type"), "none")
    linear = keys.metadata.get(keys.name("rope.scale_linear"))
    if kind == "none" and linear is not None:
        factor = keys.number("rope.scale_linear", 1.0, 1e-3, 1e6)
        return RopeScaling(kind="linear", factor=factor) if factor != 1.0 else RopeScaling()
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise UnsupportedModelFormat(
            f"{keys.name('rope.scaling.type')} is {_shown(kind)}; "
            "none, linear, yarn and longrope are supported"
        )
    attention = keys.name("rope.scaling.attn_factor")
    return RopeScaling(
        kind=kind,  # type: ignore[arg-type]  # the line above has narrowed it
        factor=keys.number("rope.scaling.factor", 1.0, 1e-3, 1e6),
        original_context_length=keys.size(
            "rope.scaling.original_context_length",
            MAX_CONTEXT,
            keys.size("context_length", MAX_CONTEXT),
        ),
        attention_factor=keys.metadata.float_(attention, None, minimum=1e-6, maximum=1e6),
        beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0, 1e-6, 1e6),
        beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0, 1e-6, 1e6),
        extrapolation_factor=keys.number("rope.scaling.yarn_ext_factor", 1.0, 0.0, 1.0),
    )


def _llama(keys: _Keys, tensors: Tensors) -> DecoderSpec:
    """llama and mistral: converted files rotate neighbouring pairs."""
    return _base(keys, tensors, rope_kind="norm")


def _qwen2(keys: _Keys, tensors: Tensors) -> DecoderSpec:
    return _base(keys, tensors, rope_kind="neox", qkv_bias=True)


def _qwen3(keys: _Keys, tensors: Tensors) -> DecoderSpec:
    return _base(keys, tensors, rope_kind="neox", qk_norm=True)


_FAMILIES: dict[str, Callable[[_Keys, Tensors], DecoderSpec]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
}
