"""The model's tokenizer: byte-level BPE behind the qwen2 pre-tokenizer; every digit is a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.corpus import Document, Renderer, document

VOCAB_SIZE = 1536
END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
USER_DEFINED_TOKENS = ("<tool_call>", "</tool_call>")
SAMPLE_DOCUMENTS = 12000

# The pre-tokenizer that llama.cpp calls "qwen2".
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(seed: int, documents: int = SAMPLE_DOCUMENTS) -> Tokenizer:
    """Learn the merges from the first documents of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special_count = len(CONTROL_TOKENS) + len(USER_DEFINED_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - special_count,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(seed, documents), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in CONTROL_TOKENS])
    tokenizer.add_tokens(
        [AddedToken(text, special=False, normalized=False) for text in USER_DEFINED_TOKENS]
    )
    return tokenizer


def _sample(seed: int, documents: int) -> Iterator[str]:
    renderer = Renderer()
    for index in range(documents):
        text = renderer.document(document(seed, index))
        for token in (*CONTROL_TOKENS, *USER_DEFINED_TOKENS):
            text = text.replace(token, "\n")
        yield text


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that `train_tokenizer` made and `save` wrote."""
    return Tokenizer.from_file(str(path))


class Encoder:
    """Encodes documents, and says which tokens the model learns to produce."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._renderer = Renderer()
        self._turn_end = tokenizer.token_to_id(TURN_END)
        self._end_of_text = tokenizer.token_to_id(END_OF_TEXT)
        self._opening = tokenizer.encode(f"{TURN_START}assistant\n").ids

    def encode_batch(self, batch: list[Document]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids and learn flags of each document; an end-of-text token closes it."""
        texts = [self._renderer.document(item) for item in batch]
        encoded = self._tokenizer.encode_batch(texts)
        return [
            self._flagged(item.ids, is_plain=source.text is not None)
            for item, source in zip(encoded, batch, strict=True)
        ]

    def _flagged(self, ids: list[int], is_plain: bool) -> tuple[np.ndarray, np.ndarray]:
        flags = np.full(len(ids) + 1, is_plain)
        if not is_plain:
            position = 0
            while (position := self._next_answer(ids, position)) >= 0:
                end = ids.index(self._turn_end, position)
                flags[position : end + 1] = True
                position = end + 1
        return np.array([*ids, self._end_of_text], dtype=np.int64), flags

    def _next_answer(self, ids: list[int], start: int) -> int:
        size = len(self._opening)
        for position in range(start, len(ids) - size):
            if (
                ids[position] == self._opening[0]
                and ids[position : position + size] == self._opening
            ):
                return position + size
        return -1
