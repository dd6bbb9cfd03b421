"""SentencePiece-style BPE with scores and byte fallback (`tokenizer.ggml.model` = `llama`).

The algorithm is llama.cpp's: from single characters on, the pair whose concatenation is the token
with the highest score is merged, the leftmost first among equals; what is no token in the end
becomes byte tokens. The `tokenizers` library cannot express it exactly (it ranks pairs, not
results, so that equal scores and characters that are no tokens come out differently), hence this
implementation: a heap, O(n log n).
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence

from rocmforge.text.vocabulary import TokenType, Vocabulary

SPACE = "▁"
_MAX_CACHED_WORDS = 50_000
_MAX_CACHED_WORD_CHARS = 32

# A word with the blanks before it.
_WORD = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
_BLANK_INSIDE = re.compile(f"[^{SPACE}]{SPACE}")


class SentencePieceBpe:
    """Turns text without special tokens into ids.

    When no token has a blank behind another character (true of the public vocabularies), no merge
    can cross the start of a word, so that words are encoded one by one and remembered: the result
    is the same.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.ids
        self._scores = vocabulary.scores
        self._unk_id = vocabulary.unk_id
        self._byte_ids = [_byte_id(vocabulary, byte) for byte in range(256)]
        self._longest = max(map(len, vocabulary.tokens))
        self._by_word = not any(map(_BLANK_INSIDE.search, vocabulary.tokens))
        self._cache: dict[str, tuple[int, ...]] = {}
        self.has_every_byte = None not in self._byte_ids

    def encode(self, text: str) -> list[int]:
        """Ids of a text (blanks are turned into ▁ here); an unknown byte is the unknown token."""
        text = text.replace(" ", SPACE)
        if not self._by_word:
            return self._merge(text)
        ids: list[int] = []
        for word in _WORD.findall(text):
            ids.extend(self._cached(word))
        return ids

    def _cached(self, word: str) -> Sequence[int]:
        if len(word) > _MAX_CACHED_WORD_CHARS:
            return self._merge(word)
        ids = self._cache.get(word)
        if ids is None:
            ids = tuple(self._merge(word))
            if len(self._cache) >= _MAX_CACHED_WORDS:
                self._cache.clear()
            self._cache[word] = ids
        return ids

    def _merge(self, text: str) -> list[int]:
        n = len(text)
        symbols = list(text)  # "" once merged into its left neighbour
        after = list(range(1, n + 1))
        before = list(range(-1, n - 1))
        heap: list[tuple[float, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            if left < 0 or right >= n:
                return
            size = len(symbols[left]) + len(symbols[right])
            if size > self._longest:
                return
            token_id = self._ids.get(symbols[left] + symbols[right])
            if token_id is not None:
                heapq.heappush(heap, (-self._scores[token_id], left, right, size))

        for right in range(1, n):
            offer(right - 1, right)
        while heap:
            _, left, right, size = heapq.heappop(heap)
            # An entry is stale when either side has grown or gone since.
            if not symbols[right] or len(symbols[left]) + len(symbols[right]) != size:
                continue
            if not symbols[left]:
                continue
            symbols[left] += symbols[right]
            symbols[right] = ""
            after[left] = after[right]
            if after[left] < n:
                before[after[left]] = left
            offer(before[left], left)
            offer(left, after[left])
        return list(self._to_ids(symbol for symbol in symbols if symbol))

    def _to_ids(self, symbols: Iterable[str]) -> Iterable[int]:
        for symbol in symbols:
            token_id = self._ids.get(symbol)
            if token_id is not None:
                yield token_id
                continue
            for byte in symbol.encode():
                fallback = self._byte_ids[byte]
                if fallback is None:
                    fallback = self._unk_id
                if fallback is not None:
                    yield fallback


def _byte_id(vocabulary: Vocabulary, byte: int) -> int | None:
    """The token for a byte: `<0xNN>`, or the character itself below 128."""
    found = vocabulary.ids.get(f"<0x{byte:02X}>")
    return vocabulary.ids.get(chr(byte)) if found is None and byte < 128 else found


def piece_bytes(text: str, kind: TokenType) -> bytes:
    """The bytes that a token of this vocabulary stands for."""
    if kind is TokenType.Byte:
        return bytes([parse_byte_token(text)])
    return (text if kind is TokenType.UserDefined else text.replace(SPACE, " ")).encode()


def parse_byte_token(text: str) -> int:
    """The byte of `<0xNN>`; -1 when the text has another form."""
    match = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", text)
    return int(match.group(1), 16) if match else -1
