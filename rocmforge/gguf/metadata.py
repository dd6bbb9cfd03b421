"""GGUF metadata: a read-only mapping with typed getters that name the key when a value does not
fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from rocmforge.errors import InvalidModelFile

_Default = TypeVar("_Default")
_REQUIRED: Any = object()


class ValueKind(IntEnum):
    """The types of metadata values, with the ids of the GGUF specification."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


SCALAR_DTYPES: dict[ValueKind, np.dtype[Any]] = {
    ValueKind.UINT8: np.dtype("<u1"),
    ValueKind.INT8: np.dtype("<i1"),
    ValueKind.UINT16: np.dtype("<u2"),
    ValueKind.INT16: np.dtype("<i2"),
    ValueKind.UINT32: np.dtype("<u4"),
    ValueKind.INT32: np.dtype("<i4"),
    ValueKind.FLOAT32: np.dtype("<f4"),
    ValueKind.BOOL: np.dtype("?"),
    ValueKind.UINT64: np.dtype("<u8"),
    ValueKind.INT64: np.dtype("<i8"),
    ValueKind.FLOAT64: np.dtype("<f8"),
}
"""How the kinds of fixed size lie in the file."""


class StringArray(Sequence[str]):
    """An array of strings as it lies in the file; a string is decoded when it is asked for.

    `data` holds all strings, the eight bytes of its length in front of each; string i is
    data[starts[i] : starts[i] + lengths[i]]. Bytes that are not UTF-8 become U+FFFD in `[i]`;
    `raw(i)` gives them as they are.
    """

    def __init__(
        self, data: bytes, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> None:
        self._data = data
        self._starts = starts
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._starts)

    def raw(self, index: int) -> bytes:
        """The bytes of one string."""
        start = int(self._starts[index])
        return self._data[start : start + int(self._lengths[index])]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.raw(index).decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        starts, ends = self._starts.tolist(), (self._starts + self._lengths).tolist()
        for start, end in zip(starts, ends, strict=True):
            yield self._data[start:end].decode("utf-8", "replace")

    def joined(self, separator: int) -> bytes:
        """All strings as they are, with the byte `separator` in front of each."""
        data = np.frombuffer(self._data, np.uint8).copy()
        keep = np.ones(len(data), np.bool_)
        for back in range(2, 9):  # of the eight bytes of a length the last stays
            keep[self._starts - back] = False
        data[self._starts - 1] = separator
        return data[keep].tobytes()

    def decoded(self) -> list[str] | None:
        """All strings, much faster than one by one; None when one is not UTF-8, or has a zero."""
        data = self.joined(0)
        if data.count(0) != len(self):
            return None
        try:
            return data.decode().split("\0")[1:]
        except UnicodeDecodeError:
            return None

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of each string."""
        return self._lengths

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # compares with lists, so it cannot be a key

    def __repr__(self) -> str:
        return f"<StringArray of {len(self)}>"


class Metadata(Mapping[str, Any]):
    """Key → value: bool, int, float, str, numpy array (numbers), StringArray, or list (nested
    arrays)."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def int_(self, key: str, *, minimum: int = ..., maximum: int = ...) -> int: ...
    @overload
    def int_(
        self, key: str, default: _Default, *, minimum: int = ..., maximum: int = ...
    ) -> int | _Default: ...
    def int_(
        self, key: str, default: Any = _REQUIRED, *, minimum: int = 0, maximum: int = 2**31 - 1
    ) -> Any:
        """An integer within [minimum, maximum]; raises InvalidModelFile naming the key."""
        value = self._get(key, default)
        if value is default and key not in self._values:
            return value
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(key, "an integer", value)
        if not minimum <= value <= maximum:
            raise InvalidModelFile(f"{key} is {value}, expected {minimum} to {maximum}")
        return value

    @overload
    def float_(self, key: str, *, minimum: float = ..., maximum: float = ...) -> float: ...
    @overload
    def float_(
        self, key: str, default: _Default, *, minimum: float = ..., maximum: float = ...
    ) -> float | _Default: ...
    def float_(
        self,
        key: str,
        default: Any = _REQUIRED,
        *,
        minimum: float = -3.4e38,
        maximum: float = 3.4e38,
    ) -> Any:
        """A finite number within [minimum, maximum]; raises InvalidModelFile naming the key."""
        value = self._get(key, default)
        if value is default and key not in self._values:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(key, "a number", value)
        if not minimum <= value <= maximum:  # false for NaN too
            raise InvalidModelFile(f"{key} is {value}, expected {minimum} to {maximum}")
        return float(value)

    @overload
    def bool_(self, key: str) -> bool: ...
    @overload
    def bool_(self, key: str, default: _Default) -> bool | _Default: ...
    def bool_(self, key: str, default: Any = _REQUIRED) -> Any:
        """A boolean; raises InvalidModelFile naming the key."""
        return self._typed(key, default, bool, "a boolean")

    @overload
    def str_(self, key: str) -> str: ...
    @overload
    def str_(self, key: str, default: _Default) -> str | _Default: ...
    def str_(self, key: str, default: Any = _REQUIRED) -> Any:
        """A string; raises InvalidModelFile naming the key."""
        return self._typed(key, default, str, "a string")

    def array(self, key: str, kind: str, default: Any = _REQUIRED) -> Any:
        """An array of `kind` (`str`, `int`, `float` or `bool`); raises InvalidModelFile naming the
        key.

        Strings come as a StringArray, numbers as a numpy array of the file's type.
        """
        value = self._get(key, default)
        if value is default and key not in self._values:
            return value
        codes = {"int": "iu", "float": "f", "bool": "b"}
        fits = (
            isinstance(value, StringArray)
            if kind == "str"
            else isinstance(value, np.ndarray) and value.dtype.kind in codes[kind]
        )
        if not fits:
            raise _wrong(key, f"an array of {kind}", value)
        return value

    def _get(self, key: str, default: Any) -> Any:
        if key in self._values:
            return self._values[key]
        if default is _REQUIRED:
            raise InvalidModelFile(f"the file lacks the metadata key {key}")
        return default

    def _typed(self, key: str, default: Any, kind: type, words: str) -> Any:
        value = self._get(key, default)
        if key in self._values and not isinstance(value, kind):
            raise _wrong(key, words, value)
        return value


def _wrong(key: str, words: str, value: object) -> InvalidModelFile:
    return InvalidModelFile(f"{key} should be {words}, but the file has {type(value).__name__}")
