"""Metadata and tensor lists of models that exist on paper only, and their specs."""

from __future__ import annotations

from rocmforge.gguf.metadata import Metadata
from rocmforge.gguf.reader import TensorInfo
from rocmforge.models.families import decoder_spec
from rocmforge.models.spec import DecoderSpec
from rocmforge.quant.formats import GGMLType

SIZES = {
    "block_count": 2,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "context_length": 512,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
}


def metadata(architecture="llama", changes=None):
    """The least that a model needs; `changes` by key without prefix, None takes one away."""
    values = SIZES | (changes or {})
    named = {f"{architecture}.{key}": value for key, value in values.items() if value is not None}
    return Metadata({"general.architecture": architecture} | named)


def tensors(*names, n_vocab=320, n_embd=64):
    """The embedding table, and vectors of these names."""
    infos = {"token_embd.weight": info("token_embd.weight", (n_vocab, n_embd))}
    return infos | {name: info(name, (n_embd,)) for name in names}


def info(name, shape):
    """A tensor that is only described."""
    return TensorInfo(name, GGMLType.F32, shape, 0, 0, 0)


def spec_of(architecture="llama", changes=None, names=("output.weight",)) -> DecoderSpec:
    """What decoder_spec makes of it."""
    return decoder_spec(metadata(architecture, changes), tensors(*names))
