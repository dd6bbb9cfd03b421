"""The tokenizer keeps digits apart, loses nothing, and marks what the model learns to say."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from training import tokenizer as bpe
from training.corpus import Document, Renderer, document

SAMPLE = 300


@pytest.fixture(scope="module")
def small_tokenizer() -> Tokenizer:
    return bpe.train_tokenizer(seed=1, documents=SAMPLE)


def test_every_digit_is_a_token(small_tokenizer: Tokenizer) -> None:
    for token in small_tokenizer.get_vocab():
        assert len(token) == 1 or not any(char.isdigit() for char in token)
    assert small_tokenizer.encode("2026").tokens == ["2", "0", "2", "6"]


def test_any_text_survives(small_tokenizer: Tokenizer) -> None:
    for text in (
        "Grüße, 你好 🙂\n\t 12 + 30 = 42",
        *map(Renderer().document, map(_doc, range(50))),
    ):
        ids = small_tokenizer.encode(text).ids
        assert small_tokenizer.decode(ids, skip_special_tokens=False) == text


def test_only_answers_are_learnt(small_tokenizer: Tokenizer) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Goodbye!"},
    ]
    encoder = bpe.Encoder(small_tokenizer)
    plain = Document([], [], "Once upon a time")
    (ids, flags), (plain_ids, plain_flags) = encoder.encode_batch([Document(messages, []), plain])
    learnt = small_tokenizer.decode(ids[flags].tolist(), skip_special_tokens=False)
    assert learnt == "Hello!<|im_end|>Goodbye!<|im_end|>"
    assert plain_flags.all()
    assert plain_ids[-1] == small_tokenizer.token_to_id(bpe.END_OF_TEXT)


def _doc(index: int) -> Document:
    return document(9, index)
