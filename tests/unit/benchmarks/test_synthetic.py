"""benchmarks/synthetic.py: types as llama.cpp's quantizer chooses, weights that compute."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import FILE_TYPES, SHAPES, model_file, random_matrix, tensor_types

import rocmforge
from rocmforge.gguf.reader import GGUFFile
from rocmforge.quant.formats import GGMLType
from rocmforge.quant.reference import decode


def types_of(shape, file_type, name):
    types = tensor_types(SHAPES[shape], file_type)
    return [types[f"blk.{i}.{name}.weight"].name for i in range(SHAPES[shape].n_layers)]


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize("shape", ["tiny", "tiny-qwen2"])
def test_every_type_loads_and_computes(tmp_path, shape, file_type):
    path = model_file(tmp_path, shape, file_type)
    with rocmforge.load(path, threads=1) as model:
        logits = model.logits(list(range(40)))
    assert logits.shape[-1] == SHAPES[shape].n_vocab
    assert np.isfinite(logits).all()
    # Of order one: neither vanished nor grown on the way.
    assert 0.2 < float(logits.std()) < 5


def test_a_file_is_written_once(tmp_path):
    path = model_file(tmp_path / "models", "tiny", "Q4_0")
    before = path.stat().st_mtime_ns
    assert model_file(tmp_path / "models", "tiny", "Q4_0") == path
    assert path.stat().st_mtime_ns == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_K", "Q5_0", "Q5_1", "Q6_K", "Q8_0", "F16"])
def test_values_have_the_size_that_keeps_activations(type_name):
    type_ = GGMLType[type_name]
    raw = random_matrix(np.random.default_rng(0), type_, 64, 256)
    values = decode(type_, raw, 64 * 256)
    assert abs(float(np.square(values).mean()) ** 0.5 * 16 - 1) < 0.4
    assert abs(float(values.mean())) * 16 < 0.1
    assert len(np.unique(values)) > 15


def test_q4_k_m_gives_half_of_the_layers_more_bits():
    for name in ("attn_v", "ffn_down"):
        types = types_of("1b", "Q4_K_M", name)
        assert types.count("Q6_K") == 8
        # The first and last eighth, and every third between them.
        assert [i for i, t in enumerate(types) if t == "Q6_K"] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert set(types_of("1b", "Q4_K_M", "attn_q")) == {"Q4_K"}


@pytest.mark.parametrize(
    ("shape", "file_type", "expected"),
    [
        ("1b", "Q4_0", "Q6_K"),
        ("1b", "Q4_K_M", "Q6_K"),
        ("1b", "Q8_0", "Q8_0"),
        ("1b", "BF16", "BF16"),
        ("1b", "MXFP4", "Q8_0"),
        ("0.5b", "Q4_0", "Q8_0"),
        ("0.5b", "Q4_K_M", "Q8_0"),
    ],
)
def test_the_head_gets_a_type_of_its_own(shape, file_type, expected):
    assert tensor_types(SHAPES[shape], file_type)["token_embd.weight"].name == expected


@pytest.mark.parametrize(
    ("file_type", "narrow"), [("Q4_K_M", "Q5_0"), ("Q5_K", "Q5_1"), ("Q6_K", "Q8_0")]
)
def test_rows_of_896_fall_back(file_type, narrow):
    assert set(types_of("0.5b", file_type, "attn_q")) == {narrow}
    # Its rows are 4864 long, a multiple of 256.
    assert set(types_of("0.5b", file_type, "ffn_down")) <= {"Q4_K", "Q5_K", "Q6_K"}
    assert set(types_of("0.5b", "IQ4_XS", "ffn_up")) == {"IQ4_NL"}


def test_sizes_are_those_of_the_real_models():
    with_head = {s: sum(r * c for r, c in SHAPES[s].matrices.values()) for s in ("1b", "0.5b")}
    assert with_head["1b"] * 16 + 128256 * 2048 == pytest.approx(1.2358e9, rel=1e-3)
    assert with_head["0.5b"] * 24 + 151936 * 896 == pytest.approx(0.494e9, rel=1e-3)


def test_biases_are_where_qwen2_has_them(tmp_path):
    with GGUFFile.open(model_file(tmp_path, "tiny-qwen2", "F16")) as file:
        assert file.tensors["blk.1.attn_k.bias"].shape == (64,)
    with GGUFFile.open(model_file(tmp_path, "tiny", "F16")) as file:
        assert not any(name.endswith(".bias") for name in file.tensors)
