"""Our tokenizers against llama.cpp: goldens on hard texts, and live on random texts (llama_cpp)."""

from __future__ import annotations

import random

import pytest
from tokenizer_vocabularies import (
    BPE_GOLDEN,
    MARKED,
    SPM_GOLDEN,
    SPM_VARIANTS,
    TEXTS,
    bpe_metadata,
    load,
    marked_metadata,
    random_text,
    spm_metadata,
    spm_pieces,
)

from rocmforge.text.pre_tokenizers import PRE_TOKENIZERS
from rocmforge.text.tokenizer import Tokenizer

BPE = load(BPE_GOLDEN)
SPM = load(SPM_GOLDEN)


def bpe(name: str) -> Tokenizer:
    return Tokenizer.from_metadata(bpe_metadata(name, BPE["merges"]))


def spm(variant: str, *, across: bool) -> Tokenizer:
    pieces = spm_pieces(SPM, across_words=across)
    return Tokenizer.from_metadata(spm_metadata(pieces, **SPM_VARIANTS[variant]))


def check_common(tokenizer: Tokenizer, golden: dict) -> None:
    for index, text in enumerate(TEXTS):
        encode = tokenizer.encode
        assert encode(text, add_special=False) == golden["plain"][index], repr(text)
        assert encode(text, add_special=True) == golden["special"][index], repr(text)
        ids = encode(text, add_special=False, parse_special=True)
        assert ids == golden["parsed"][index], repr(text)
        pieces = b"".join(map(tokenizer.token_bytes, ids))
        assert pieces.decode("latin-1") == golden["pieces"][index], repr(text)

    ids = [i for line in golden["parsed"] for i in line]
    named = b"".join(tokenizer.piece(i, skip_special=False) for i in ids)
    assert named.decode("latin-1") == golden["named"]


def decode_like_llama(tokenizer: Tokenizer, ids: list[int]) -> str:
    """llama.cpp takes the blank from the very first token only, we also from behind hidden ones."""
    keeps = bool(ids) and tokenizer.is_control(ids[0])
    return tokenizer.decode(ids, continuation=keeps)


def test_every_scheme_is_covered():
    assert set(BPE["names"]) == set(PRE_TOKENIZERS)


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_pre_tokenizer(name: str):
    group = BPE["groups"][BPE["names"][name]]
    tokenizer = bpe(name)
    for text, ids in zip(TEXTS, group["ids"], strict=True):
        ours = tokenizer.encode(text, add_special=False, parse_special=True)
        assert ours == ids, (
            repr(text),
            [tokenizer.token_text(i) for i in ours],
            [tokenizer.token_text(i) for i in ids],
        )
    assert tokenizer.add_bos == group["adds_bos"]


def test_byte_level_encode_and_decode():
    check_common(bpe("llama-bpe"), BPE["common"])


@pytest.mark.parametrize("variant", sorted(SPM["variants"]))
def test_sentencepiece(variant: str):
    name, words = variant.split(", ")
    tokenizer = spm(name, across=words == "across words")
    golden = SPM["variants"][variant]
    check_common(tokenizer, golden)
    for ids, text in zip(golden["parsed"], golden["decoded"], strict=True):
        assert decode_like_llama(tokenizer, ids) == text.encode("latin-1").decode(
            "utf-8", "replace"
        )


@pytest.mark.parametrize("name", sorted(MARKED))
def test_end_of_generation(name: str):
    tokenizer = Tokenizer.from_metadata(marked_metadata(name))
    golden = BPE["marked"][name]
    assert sorted(tokenizer.eog_ids) == golden["ends"]
    ids = range(len(MARKED[name][0]))
    assert [i for i in ids if tokenizer.is_control(i)] == golden["control"]


@pytest.mark.llama_cpp
@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_pre_tokenizer_on_random_texts(name: str):
    from tokenizer_oracle import llama_vocabulary

    rng = random.Random(name)
    metadata = bpe_metadata(name, BPE["merges"])
    tokenizer = Tokenizer.from_metadata(metadata)
    with llama_vocabulary(metadata) as oracle:
        for _ in range(300):
            text = random_text(rng)
            ours = tokenizer.encode(text, add_special=False, parse_special=True)
            assert ours == oracle.encode(text, add_special=False, parse_special=True), repr(text)


@pytest.mark.llama_cpp
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("variant", sorted(SPM_VARIANTS))
def test_sentencepiece_on_random_texts(variant: str, across: bool):
    from tokenizer_oracle import llama_vocabulary

    rng = random.Random(variant)
    metadata = spm_metadata(spm_pieces(SPM, across_words=across), **SPM_VARIANTS[variant])
    tokenizer = Tokenizer.from_metadata(metadata)
    with llama_vocabulary(metadata) as oracle:
        for _ in range(300):
            text = random_text(rng)
            ours = tokenizer.encode(text, add_special=False, parse_special=True)
            theirs = oracle.encode(text, add_special=False, parse_special=True)
            assert ours == theirs, repr(text)
            decoded = oracle.decode(ours).decode("utf-8", "replace")
            assert decode_like_llama(tokenizer, ours) == decoded, repr(text)
