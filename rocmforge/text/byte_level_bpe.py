"""Byte-level BPE (`tokenizer.ggml.model` = `gpt2`), on the `tokenizers` library.

Texts are cut by the pre-tokenizer, each byte becomes one printable character (GPT-2's table), and
merges are applied within a piece, lowest rank first.
"""

from __future__ import annotations

from collections.abc import Mapping

import tokenizers
from tokenizers import Regex, models, pre_tokenizers

from rocmforge.text.merges import PlainMerges, read_merges
from rocmforge.text.pre_tokenizers import PreTokenizer
from rocmforge.text.vocabulary import Vocabulary


def _byte_characters() -> dict[int, str]:
    """Byte → character: printable Latin-1 stands for itself, the others follow from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    table.update({byte: chr(0x100 + rank) for rank, byte in enumerate(others)})
    return table


_BYTE_OF_CHARACTER = {char: byte for byte, char in _byte_characters().items()}


def byte_level_bytes(text: str) -> bytes:
    """The bytes that a token text of a byte-level vocabulary stands for.

    A text with a character outside GPT-2's table stands for itself: some files hold added tokens as
    plain text.
    """
    try:
        return bytes([_BYTE_OF_CHARACTER[char] for char in text])
    except KeyError:
        return text.encode()


class ByteLevelBpe:
    """Turns text without special tokens into ids."""

    def __init__(
        self, vocabulary: Vocabulary, metadata: Mapping[str, object], scheme: PreTokenizer
    ) -> None:
        self._cut = scheme.cut
        self._tokenizer = tokenizers.Tokenizer(_model(metadata, vocabulary.ids, scheme))
        cuts = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in scheme.patterns]
        # The byte mapping alone: its own pattern is off.
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, as_bytes])
        self.has_every_byte = all(char in vocabulary.ids for char in _BYTE_OF_CHARACTER)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; bytes that the vocabulary lacks are dropped, as the format has it."""
        # The batch calls are those that let other threads run meanwhile.
        if self._cut is None:
            (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        else:
            (encoding,) = self._tokenizer.encode_batch_fast(
                [list(self._cut(text))], is_pretokenized=True, add_special_tokens=False
            )
        return list(encoding.ids)


def _model(metadata: Mapping[str, object], ids: dict[str, int], scheme: PreTokenizer) -> models.BPE:
    plain = PlainMerges.of(metadata)
    if plain is not None:
        try:
            return models.BPE(vocab=ids, merges=plain, ignore_merges=scheme.ignore_merges)
        except Exception:  # noqa: BLE001  # the library has no narrower type
            # A merge is not of tokens: read_merges says which.
            plain = None
    merges = read_merges(metadata, ids, required=scheme.needs_merges)
    return models.BPE(vocab=ids, merges=merges, ignore_merges=scheme.ignore_merges)
