"""Finds special-token texts in a text and cuts the text around them.

The order is llama.cpp's: longer token texts (in bytes) are cut out of the whole text before shorter
ones. That is not the leftmost-longest match of a regular expression: in `abcd`, with tokens `bcd`
and `ab`, `bcd` wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Fragment = str | int
"""A piece of text, or the id of a special token."""


class SpecialTokens:
    """Splits texts around a fixed set of token texts.

    texts: token text → id. trim_after: ids that also swallow the ASCII blanks behind them (Phi-3).
    """

    def __init__(self, texts: Mapping[str, int], trim_after: frozenset[int] = frozenset()) -> None:
        self._ids = dict(texts)
        self._trim_after = trim_after
        self._order = {
            text: rank
            for rank, text in enumerate(
                sorted(self._ids, key=lambda t: (-len(t.encode()), self._ids[t]))
            )
        }
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(found) for first, found in lengths.items()}
        self._lengths_by_last: dict[str, list[int]] = {}
        for text in sorted(self._ids, key=len, reverse=True):
            found_lengths = self._lengths_by_last.setdefault(text[-1], [])
            if len(text) not in found_lengths:
                found_lengths.append(len(text))
        firsts = "".join(re.escape(first) for first in self._lengths)
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def split(self, text: str) -> list[Fragment]:
        """The fragments of a text in order; none is empty."""
        fragments: list[Fragment] = [text] if text else []
        for special in self._present(text):
            fragments = self._cut(fragments, special)
        return fragments

    def without(self, text: str) -> str:
        """The text without any special text, those included that only come together when others
        go. Linear in the text: cutting again and again until nothing is left to cut would let
        nested ones cost its square.
        """
        if not self._present(text):
            return text
        kept: list[str] = []
        for char in text:
            kept.append(char)
            # What is kept never ends with a special text, so that only its end needs a look.
            for length in self._lengths_by_last.get(char, ()):
                if length <= len(kept) and "".join(kept[-length:]) in self._ids:
                    del kept[-length:]
                    break
        return "".join(kept)

    def _present(self, text: str) -> list[str]:
        """The special texts that occur in `text`, longest first: one pass, however many there
        are.
        """
        if self._first is None:
            return []
        found: set[str] = set()
        for match in self._first.finditer(text):
            at = match.start()
            for length in self._lengths[match.group()]:
                candidate = text[at : at + length]
                if candidate in self._ids:
                    found.add(candidate)
        return sorted(found, key=self._order.__getitem__)

    def _cut(self, fragments: list[Fragment], special: str) -> list[Fragment]:
        token_id = self._ids[special]
        result: list[Fragment] = []
        for fragment in fragments:
            if isinstance(fragment, int) or special not in fragment:
                result.append(fragment)
                continue
            for number, part in enumerate(fragment.split(special)):
                if number:
                    result.append(token_id)
                    if token_id in self._trim_after:
                        part = part.lstrip(" \t\n\v\f\r")
                if part:
                    result.append(part)
        return result
