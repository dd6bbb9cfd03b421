"""The merges of a byte-level BPE file: `tokenizer.ggml.merges`, pairs of tokens in order of rank.

A file has hundreds of thousands. Those of sound files are passed on as they lie in the file, in
chunks and unchecked, to the library that looks each of them up anyway; what is unusual is read one
by one, with every check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rocmforge.errors import InvalidModelFile
from rocmforge.gguf.metadata import StringArray
from rocmforge.text.vocabulary import PREFIX, checked_text, read_strings

MAX_MERGES = 8_000_000
_KEY: Final = PREFIX + "merges"
# Pairs of strings that are alive at once: a megabyte or two.
_CHUNK: Final = 1 << 14
_BLANK: Final = 0x20


def read_merges(
    metadata: Mapping[str, object], ids: Mapping[str, int], *, required: bool
) -> list[tuple[str, str]]:
    """Pairs in order of rank, each checked against the tokens `ids`; the first of equal ones
    counts. Raises InvalidModelFile naming the merge.
    """
    raw = read_strings(metadata, "merges")
    if raw is None:
        if required:
            raise InvalidModelFile(f"{_KEY} is missing: this tokenizer merges by rank")
        return []
    if len(raw) > MAX_MERGES:
        raise InvalidModelFile(f"{_KEY} has {len(raw)} entries; at most {MAX_MERGES}")
    merges: dict[tuple[str, str], None] = {}
    for index, value in enumerate(raw):
        # Both parts are looked up among checked tokens, so that a str needs no check of its own.
        text = value if isinstance(value, str) else checked_text(value, "merges", index)
        # The separator is looked for behind the first character, which may itself be a blank.
        cut = text.find(" ", 1)
        left, right = text[:cut], text[cut + 1 :]
        if cut < 0 or left not in ids or right not in ids or left + right not in ids:
            raise InvalidModelFile(
                f"{_KEY}[{index}] is {text[:60]!r}: it must be two tokens of the "
                "vocabulary, parted by a blank, that together are a token too"
            )
        merges.setdefault((left, right))
    return list(merges)


class PlainMerges(Sequence[tuple[str, str]]):
    """Merges of one blank each, all different, made when they are iterated over: not all are in
    memory at once. They may be none of the vocabulary, or no UTF-8 (UnicodeDecodeError).
    """

    def __init__(self, data: bytes, starts: npt.NDArray[np.int64]) -> None:
        """data: the merges as in the file, a zero in front of each, at `starts`."""
        self._data = data
        self._bounds = [*starts.tolist(), len(data)]

    @classmethod
    def of(cls, metadata: Mapping[str, object]) -> PlainMerges | None:
        """The file's merges; None when they are missing or not of that kind."""
        array = metadata.get(_KEY)
        if not isinstance(array, StringArray) or not 0 < len(array) <= MAX_MERGES:
            return None
        data = array.joined(0)
        values = np.frombuffer(data, np.uint8)
        starts, blanks = np.flatnonzero(values == 0), np.flatnonzero(values == _BLANK)
        alternate = (
            len(starts) == len(blanks) == len(array)
            and bool((starts < blanks).all())
            and bool((blanks[:-1] < starts[1:]).all())
        )
        return cls(data, starts) if alternate and _all_differ(data, len(array)) else None

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return chain.from_iterable(map(self._chunk, range(0, len(self), _CHUNK)))

    def _chunk(self, first: int) -> Iterator[tuple[str, str]]:
        begin, end = self._bounds[first], self._bounds[min(first + _CHUNK, len(self))]
        words = iter(self._data[begin + 1 : end].decode().replace("\0", " ").split(" "))
        return zip(words, words, strict=True)


def _all_differ(data: bytes, count: int) -> bool:
    """Whether the strings behind the zeros are different, going by their hashes: False may be wrong
    (once in a billion files), True is not.
    """
    strings = data.split(b"\0")
    hashes = np.fromiter(map(hash, strings), np.int64, count + 1)
    hashes.sort()
    return not bool((hashes[1:] == hashes[:-1]).any())
