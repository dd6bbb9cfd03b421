"""Tokenizer metadata: sound files are read, hostile ones are refused with the key's name."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rocmforge.errors import InvalidModelFile, UnsupportedModelFormat
from rocmforge.text.tokenizer import Tokenizer
from rocmforge.text.vocabulary import MAX_TOKEN_BYTES, TokenType, Vocabulary
from tests.support.gguf_files import string_array

G = "tokenizer.ggml."


def spm(**changes: object) -> dict[str, object]:
    metadata: dict[str, object] = {
        G + "model": "llama",
        G + "tokens": ["<unk>", "<s>", "</s>", "<0x41>", "a", "b", "ab"],
        G + "scores": [0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -0.5],
        G + "token_type": [2, 3, 3, 6, 1, 1, 1],
        G + "bos_token_id": 1,
        G + "eos_token_id": 2,
    }
    metadata.update({G + key: value for key, value in changes.items()})
    return {key: value for key, value in metadata.items() if value is not None}


def bpe(*extra: str, **changes: object) -> dict[str, object]:
    metadata: dict[str, object] = {
        G + "model": "gpt2",
        G + "pre": "gpt-2",
        G + "tokens": ["a", "b", "ab", *extra],
        G + "merges": ["a b"],
    }
    metadata.update({G + key: value for key, value in changes.items()})
    return {key: value for key, value in metadata.items() if value is not None}


HOSTILE = [
    (spm(model=None), "model"),
    (spm(model=7), "model"),
    (spm(tokens=None), "tokens"),
    (spm(tokens=[]), "tokens"),
    (spm(tokens="abc"), "tokens"),
    (spm(tokens=5), "tokens"),
    (spm(tokens=["a", "b", "a"], scores=[0.0] * 3, token_type=[1] * 3), "tokens"),
    (spm(tokens=["a", 1], scores=[0.0] * 2, token_type=[1] * 2), "tokens[1]"),
    (spm(tokens=["a", b"\xff"], scores=[0.0] * 2, token_type=[1] * 2), "tokens[1]"),
    (spm(tokens=["a", "\udcff"], scores=[0.0] * 2, token_type=[1] * 2), "tokens[1]"),
    (spm(tokens=["x" * 10_000_000], scores=[0.0], token_type=[1]), "tokens[0]"),
    (spm(tokens=["é" * MAX_TOKEN_BYTES], scores=[0.0], token_type=[1]), "tokens[0]"),
    (spm(scores=None), "scores"),
    (spm(scores=[0.0] * 6), "scores"),
    (spm(scores=[0.0] * 8), "scores"),
    (spm(scores=[0.0] * 6 + [math.nan]), "scores[6]"),
    (spm(scores=[0.0] * 6 + [math.inf]), "scores[6]"),
    (spm(scores=[0.0] * 6 + ["1"]), "scores[6]"),
    (spm(scores=1.0), "scores"),
    (spm(token_type=[1] * 6), "token_type"),
    (spm(token_type=[1] * 8), "token_type"),
    (spm(token_type=[1] * 6 + [7]), "token_type[6]"),
    (spm(token_type=[1] * 6 + [-1]), "token_type[6]"),
    (spm(token_type=[1] * 6 + [True]), "token_type[6]"),
    (spm(token_type=[1] * 6 + ["1"]), "token_type[6]"),
    (spm(token_type=[1] * 4 + [6] + [1] * 2), "tokens[4]"),
    (spm(bos_token_id=7), "bos_token_id"),
    (spm(eos_token_id=-2), "eos_token_id"),
    (spm(eos_token_id="2"), "eos_token_id"),
    (spm(eos_token_id=True), "eos_token_id"),
    (spm(eot_token_id=2**40), "eot_token_id"),
    (spm(fim_pad_token_id=99), "fim_pad_token_id"),
    (spm(unknown_token_id=1.0), "unknown_token_id"),
    (spm(add_bos_token=1), "add_bos_token"),
    (spm(add_eos_token="true"), "add_eos_token"),
    (spm(add_space_prefix=[True]), "add_space_prefix"),
    (bpe(merges=None), "merges"),
    (bpe(merges="a b"), "merges"),
    (bpe(merges=["ab"]), "merges[0]"),
    (bpe(merges=["a b", ""]), "merges[1]"),
    (bpe(merges=["a c"]), "merges[0]"),
    (bpe(merges=["b a"]), "merges[0]"),
    (bpe(merges=[3]), "merges[0]"),
    (bpe(merges=[b"a \xff"]), "merges[0]"),
    (bpe(pre=3), "pre"),
]


@pytest.mark.parametrize(("metadata", "key"), HOSTILE, ids=[key for _, key in HOSTILE])
def test_hostile_metadata_names_the_key(metadata, key):
    with pytest.raises(InvalidModelFile) as caught:
        Tokenizer.from_metadata(metadata)
    assert G + key in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("model", ["bert", "t5", "rwkv", "no_vocab", "plamo2", ""])
def test_other_models_are_unsupported(model):
    with pytest.raises(UnsupportedModelFormat, match="supported are gpt2 and llama"):
        Tokenizer.from_metadata(spm(model=model))


def test_unknown_pre_tokenizer_lists_the_nearest():
    with pytest.raises(UnsupportedModelFormat) as caught:
        Tokenizer.from_metadata(bpe(pre="qwen3"))
    assert "'qwen3'" in caught.value.message
    assert "qwen2" in caught.value.message
    with pytest.raises(UnsupportedModelFormat) as caught:
        Tokenizer.from_metadata(bpe(pre="x" * 100_000))
    assert len(caught.value.message) < 500


def test_missing_pre_is_the_default_scheme():
    assert Tokenizer.from_metadata(bpe(pre=None)).encode("ab") == [2]


def test_numpy_arrays_and_bytes_are_taken():
    metadata = spm(
        tokens=[t.encode() for t in spm()[G + "tokens"]],
        scores=np.array(spm()[G + "scores"], dtype=np.float32),
        token_type=np.array(spm()[G + "token_type"], dtype=np.int32),
    )
    assert Tokenizer.from_metadata(metadata).encode("ab", add_special=False) == [0, 0, 0, 6]


def test_strings_as_the_reader_gives_them():
    texts = [text.encode() for text in spm()[G + "tokens"]]
    assert Vocabulary.from_metadata(spm(tokens=string_array(texts))).tokens[6] == "ab"
    # A real U+FFFD is a character like any other; bytes that are replaced by it are not UTF-8.
    replaced = [*texts[:-1], "\ufffd".encode()]
    assert Vocabulary.from_metadata(spm(tokens=string_array(replaced))).tokens[6] == "\ufffd"
    with pytest.raises(InvalidModelFile, match=r"tokens\[6\] is not valid UTF-8"):
        Vocabulary.from_metadata(spm(tokens=string_array([*texts[:-1], b"a\xff"])))


def test_empty_token_gets_a_name():
    vocabulary = Vocabulary.from_metadata(bpe("", "x"))
    assert vocabulary.tokens[3] == "[EMPTY_3]"


def test_absent_ids():
    for value in (0xFFFFFFFF, -1):
        assert Vocabulary.from_metadata(spm(bos_token_id=value)).bos_id is None
    vocabulary = Vocabulary.from_metadata(spm(bos_token_id=None, eos_token_id=None))
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id) == (1, 2, 0)
    vocabulary = Vocabulary.from_metadata(bpe())
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.eog_ids) == (None, None, frozenset())


def test_end_of_generation_by_key_and_by_text():
    texts = [
        "<|im_end|>",
        "<|endoftext|>",
        "<end_of_turn>",
        "<|eom_id|>",
        "<|fim_pad|>",
        "<x>",
        "</s>",
    ]
    vocabulary = Vocabulary.from_metadata(bpe(*texts, eos_token_id=8))
    assert vocabulary.eog_ids == frozenset(range(3, 10))
    # Known texts are control tokens, whatever the file says; the eos token keeps its type.
    assert {vocabulary.types[i] for i in (3, 4, 5, 6, 7, 9)} == {TokenType.Control}
    assert vocabulary.types[8] is TokenType.Normal
    keyed = Vocabulary.from_metadata(bpe("<x>", "<y>", eot_token_id=3, eom_token_id=4))
    assert keyed.eog_ids == frozenset({3, 4})


def test_harmony_end_is_no_end():
    texts = ("<|end|>", "<|return|>", "<|call|>", "<|channel|>")
    vocabulary = Vocabulary.from_metadata(bpe(*texts, token_type=[1, 1, 1, 3, 3, 3, 3]))
    assert vocabulary.eog_ids == frozenset({4, 5})
    assert vocabulary.types[3] is TokenType.UserDefined
    assert vocabulary.types[6] is TokenType.UserDefined
    assert 3 in Vocabulary.from_metadata(bpe("<|end|>", "<|return|>")).eog_ids


def test_normal_s_is_no_end():
    vocabulary = Vocabulary.from_metadata(bpe("</s>", "<|tool_response>"))
    assert vocabulary.eog_ids == frozenset({4})
    assert vocabulary.types[3] is TokenType.Normal
