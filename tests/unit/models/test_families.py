"""Specs from metadata: what each family sets, defaults, and everything that is refused."""

from __future__ import annotations

import numpy as np
import pytest

from rocmforge.errors import InvalidModelFile, TensorNotFound, UnsupportedModelFormat
from rocmforge.gguf.metadata import Metadata
from rocmforge.models.families import decoder_spec
from rocmforge.models.spec import DecoderSpec, RopeScaling
from tests.support.model_specs import info, metadata, spec_of, tensors

COMMON = {
    "n_layers": 2,
    "n_embd": 64,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 16,
    "n_ff": 96,
    "n_vocab": 320,
    "n_ctx_train": 512,
    "norm_eps": 1e-5,
    "rope_dim": 16,
    "rope_base": 10_000.0,
    "rope_scaling": RopeScaling(original_context_length=512),
}


@pytest.mark.parametrize(
    ("architecture", "special"),
    [
        ("llama", {"rope_kind": "norm"}),
        ("mistral", {"rope_kind": "norm"}),
        ("qwen2", {"rope_kind": "neox", "qkv_bias": True}),
        ("qwen3", {"rope_kind": "neox", "qk_norm": True}),
    ],
)
def test_the_families(architecture, special):
    expected = DecoderSpec(architecture=architecture, **COMMON, **special)
    assert spec_of(architecture) == expected


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("block_count", 5, "n_layers"),
        ("feed_forward_length", 128, "n_ff"),
        ("context_length", 8, "n_ctx_train"),
        ("attention.head_count_kv", 1, "n_kv_heads"),
        ("attention.layer_norm_rms_epsilon", 1e-6, "norm_eps"),
        ("attention.sliding_window", 100, "sliding_window"),
        ("rope.dimension_count", 8, "rope_dim"),
        ("rope.freq_base", 5e5, "rope_base"),
    ],
)
def test_every_key_is_heard(key, value, field):
    assert getattr(spec_of(changes={key: value}), field) == value


def test_head_size_of_its_own():
    sizes = {"attention.key_length": 24, "attention.value_length": 24}
    spec = spec_of("qwen3", sizes)
    assert (spec.head_dim, spec.rope_dim) == (24, 24)
    assert spec.scale == pytest.approx(24**-0.5)


def test_defaults():
    spec = spec_of(changes={"attention.head_count_kv": None})
    assert spec.n_kv_heads == 4
    assert spec.sliding_window == 0
    assert spec.rope_scaling == RopeScaling(original_context_length=512)


def test_one_value_per_layer():
    assert spec_of(changes={"attention.head_count_kv": np.array([2, 2], np.int32)}).n_kv_heads == 2
    with pytest.raises(UnsupportedModelFormat, match="head_count_kv differs between layers"):
        spec_of(changes={"attention.head_count_kv": np.array([2, 1], np.int32)})
    with pytest.raises(InvalidModelFile, match="head_count_kv is 0, expected 1 to 4096"):
        spec_of(changes={"attention.head_count_kv": np.array([0, 0], np.int32)})


def test_what_the_tensors_say():
    assert not spec_of().tied_embeddings
    assert spec_of(names=()).tied_embeddings
    assert spec_of(names=("rope_freqs.weight",)).has_rope_freqs
    assert spec_of(names=("blk.0.attn_q.bias",)).qkv_bias
    assert spec_of(names=("blk.1.attn_v.bias",)).qkv_bias
    assert spec_of(names=("blk.0.attn_output.bias",)).output_bias
    assert spec_of(names=("blk.1.ffn_up.bias",)).ffn_bias
    assert not spec_of(names=("other.attn_q.bias",)).qkv_bias


def test_the_vocabulary_is_the_table():
    """Files disagree with themselves; the rows of the table are what is indexed."""
    assert spec_of(changes={"vocab_size": 1000}).n_vocab == 320


def test_a_file_without_a_table():
    with pytest.raises(TensorNotFound, match=r"lacks token_embd\.weight.*only a vocabulary"):
        decoder_spec(metadata(), {})
    with pytest.raises(InvalidModelFile, match=r"token_embd\.weight has the shape \(64,\)"):
        decoder_spec(metadata(), {"token_embd.weight": info("token_embd.weight", (64,))})


@pytest.mark.parametrize(
    ("architecture", "hint"), [("llama4", "llama"), ("qwen35", "qwen3"), ("mistral3", "mistral")]
)
def test_unknown_architectures_with_a_neighbour(architecture, hint):
    with pytest.raises(UnsupportedModelFormat, match=f"'{architecture}' .*nearest .* is {hint} "):
        spec_of(architecture)


def test_unknown_architectures():
    with pytest.raises(UnsupportedModelFormat, match=r"'bert' is not supported.*llama, mistral"):
        spec_of("bert")
    with pytest.raises(UnsupportedModelFormat) as caught:
        spec_of("x" * 1_000_000)
    assert len(caught.value.message) < 300
    with pytest.raises(InvalidModelFile, match=r"lacks the metadata key general\.architecture"):
        decoder_spec(Metadata({}), tensors())


@pytest.mark.parametrize(
    "key",
    [
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "context_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_missing_keys(architecture, key):
    with pytest.raises(InvalidModelFile, match=f"lacks the metadata key {architecture}.{key}"):
        spec_of(architecture, {key: None})


IMPOSSIBLE = [
    ("block_count", 0),
    ("block_count", 1025),
    ("embedding_length", -64),
    ("embedding_length", "64"),
    ("attention.head_count", 0),
    ("attention.head_count", 3),
    ("attention.head_count", 128),
    ("attention.head_count_kv", 3),
    ("attention.head_count_kv", 8),
    ("attention.key_length", 2000),
    ("attention.key_length", 1),
    ("attention.layer_norm_rms_epsilon", 0.0),
    ("attention.layer_norm_rms_epsilon", float("nan")),
    ("attention.sliding_window", -1),
    ("rope.dimension_count", 7),
    ("rope.dimension_count", 18),
    ("rope.freq_base", 0.0),
    ("rope.freq_base", float("inf")),
    ("rope.scaling.factor", 0.0),
    ("rope.scaling.type", 3),
    ("context_length", 2**40),
]


@pytest.mark.parametrize(("key", "value"), IMPOSSIBLE)
def test_impossible_values(key, value):
    with pytest.raises(InvalidModelFile, match=r"llama\."):
        spec_of(changes={key: value})


def test_a_head_as_wide_as_the_model():
    with pytest.raises(InvalidModelFile, match=r"head_count = 1 with head size 4096"):
        spec_of(changes={"embedding_length": 4096, "attention.head_count": 1})


def test_kinds_of_models_that_are_not_built():
    with pytest.raises(UnsupportedModelFormat, match=r"mixture of experts \(llama\.expert_count\)"):
        spec_of(changes={"expert_count": 8})
    assert spec_of(changes={"expert_count": 0}).n_ff == 96
    with pytest.raises(UnsupportedModelFormat, match="value_length is 8, the key length is 16"):
        spec_of(changes={"attention.value_length": 8})
    with pytest.raises(UnsupportedModelFormat, match=r"scaling\.type is 'su'; none, linear"):
        spec_of(changes={"rope.scaling.type": "su"})


def test_rope_scaling_from_keys():
    yarn = {
        "type": "yarn",
        "factor": 4.0,
        "original_context_length": 128,
        "attn_factor": 0.5,
        "yarn_beta_fast": 16.0,
        "yarn_beta_slow": 2.0,
        "yarn_ext_factor": 0.75,
    }
    spec = spec_of(changes={f"rope.scaling.{key}": value for key, value in yarn.items()})
    assert spec.rope_scaling == RopeScaling(
        kind="yarn",
        factor=4.0,
        original_context_length=128,
        attention_factor=0.5,
        beta_fast=16.0,
        beta_slow=2.0,
        extrapolation_factor=0.75,
    )


def test_the_context_is_the_original_one_if_none_is_named():
    spec = spec_of(changes={"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0})
    assert spec.rope_scaling.original_context_length == 512


def test_the_key_of_early_files():
    scaling = spec_of(changes={"rope.scale_linear": 8.0}).rope_scaling
    assert (scaling.kind, scaling.factor) == ("linear", 8.0)
    assert spec_of(changes={"rope.scale_linear": 1.0}).rope_scaling == RopeScaling()
