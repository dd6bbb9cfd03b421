"""Byte-level BPE (`tokenizer.ggml.model` = `gpt2`), on the `tokenizers` library.

Texts are cut by the pre-tokenizer, each byte becomes one printable character (GPT-2's table), and
merges are applied within a piece, lowest rank first.
"""

from __future__ import annotations

from collections.abc import Mapping

import tokenizers
from tokenizers import Regex, models, pre_tokenizers

from rocmforge.errors import InvalidModelFile
from rocmforge.text.pre_tokenizers import PreTokenizer
from rocmforge.text.vocabulary import (
    MAX_MERGES,
    PREFIX,
    Vocabulary,
    checked_text,
    read_strings,
)


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
        merges = _read_merges(metadata, vocabulary.ids, required=scheme.needs_merges)
        self._cut = scheme.cut
        self._tokenizer = tokenizers.Tokenizer(
            models.BPE(
                vocab=dict(vocabulary.ids), merges=merges, ignore_merges=scheme.ignore_merges
            )
        )
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


def _read_merges(
    metadata: Mapping[str, object], ids: Mapping[str, int], *, required: bool
) -> list[tuple[str, str]]:
    """Pairs in order of rank; the first of equal ones counts."""
    raw = read_strings(metadata, "merges")
    if raw is None:
        if required:
            raise InvalidModelFile(f"{PREFIX}merges is missing: this tokenizer merges by rank")
        return []
    if len(raw) > MAX_MERGES:
        raise InvalidModelFile(f"{PREFIX}merges has {len(raw)} entries; at most {MAX_MERGES}")
    merges: dict[tuple[str, str], None] = {}
    for index, value in enumerate(raw):
        # Both parts are looked up among checked tokens, so that a str needs no check of its own.
        text = value if isinstance(value, str) else checked_text(value, "merges", index)
        # The separator is looked for behind the first character, which may itself be a blank.
        cut = text.find(" ", 1)
        left, right = text[:cut], text[cut + 1 :]
        if cut < 0 or left not in ids or right not in ids or left + right not in ids:
            raise InvalidModelFile(
                f"{PREFIX}merges[{index}] is {text[:60]!r}: it must be two tokens of the "
                "vocabulary, parted by a blank, that together are a token too"
            )
        merges.setdefault((left, right))
    return list(merges)
