"""Finds the strings of a GGUF array: each is a u64 length and that many bytes.

Where the next string begins is known only from the length of this one, and an array has hundreds of
thousands. But seven zero bytes in a row are nearly always the upper bytes of a length below 256. So
numpy looks for these, and the chain is checked from the front: a place counts only when the string
before it ends there. What that does not find (long strings, empty ones, zero bytes inside) is read
one by one.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.int64]

_NONE: Final[Lengths] = np.empty(0, np.int64)
_LENGTH: Final = struct.Struct("<Q")
# The arrays of a window (a byte or a bit per byte of it) stay in a core's own cache.
_WINDOW_BYTES: Final = 1 << 16
# Windows with few strings to find are a waste: read one by one, a string takes 0.1 µs, a window
# takes a hundred. After so many the rest of the array is read one by one.
_FEW: Final = 256
_MAX_POOR_WINDOWS: Final = 128


def scan_strings(
    data: bytes | bytearray, position: int, count: int, size: int
) -> tuple[Lengths, int]:
    """Lengths of the strings from `position` on, and where the string behind them begins.

    Ends after `count` strings, before one whose length is not in `data` yet, or before one that
    ends behind `size`, the size of the file. The last one may end behind `data`.
    """
    start = position
    parts: list[Lengths] = []
    n_found = n_poor = 0
    while n_found < count:
        worthwhile = n_poor < _MAX_POOR_WINDOWS
        lengths = _chain(data, position, count - n_found) if worthwhile else _NONE
        n_poor += len(lengths) < _FEW
        if not len(lengths):
            lengths = _one_by_one(data, position, 1 if worthwhile else count - n_found, size)
        end = position + 8 * len(lengths) + int(lengths.sum())
        if not len(lengths) or end > size:
            parts.append(lengths[:-1])
            break
        parts.append(lengths)
        n_found += len(lengths)
        position = end
    found = parts[0] if len(parts) == 1 else np.concatenate([_NONE, *parts])
    return found, start + 8 * len(found) + int(found.sum())


def _chain(data: bytes | bytearray, position: int, count: int) -> Lengths:
    """Lengths of the strings from `position` on, as far as the window and the chain go."""
    n_bytes = min(_WINDOW_BYTES, len(data) - position)
    if n_bytes < 8:
        return _NONE
    window = np.frombuffer(data, np.uint8, n_bytes, position)
    zero = window[1:] == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    starts = np.flatnonzero(four[:-3] & four[3:])[:count]
    if not len(starts) or starts[0]:
        return _NONE
    lengths = window[starts].astype(np.int64)
    broken = np.flatnonzero(starts[:-1] + 8 + lengths[:-1] != starts[1:])
    # A copy: a view would keep all of it alive.
    return lengths[: broken[0] + 1].copy() if len(broken) else lengths


def _one_by_one(data: bytes | bytearray, position: int, count: int, size: int) -> Lengths:
    lengths: list[int] = []
    unpack, append, last = _LENGTH.unpack_from, lengths.append, len(data) - 8
    while len(lengths) < count and position <= last:
        (length,) = unpack(data, position)
        position += 8 + length
        if position > size:
            break
        append(length)
    return np.array(lengths, np.int64)
