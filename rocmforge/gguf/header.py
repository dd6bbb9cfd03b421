"""Parse the header of one GGUF file: metadata and tensor descriptions, with every size checked
before use.

Format: the GGUF specification in ggml's documentation (docs/gguf.md), versions 2 and 3, little
endian. The header is read with read(), never mapped, so that parsing cannot be killed by a file
that shrinks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np

from rocmforge.errors import InvalidModelFile, UnsupportedModelFormat
from rocmforge.gguf.metadata import Metadata, StringArray
from rocmforge.quant.formats import FORMATS, GGMLType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 2**20
MAX_HEADER_BYTES = 2**29
MAX_KEYS = 2**17
MAX_TENSORS = 2**18
MAX_KEY_BYTES = 2**16 - 1
MAX_NAME_BYTES = 1024
MAX_DIMENSIONS = 4
MAX_ARRAY_DEPTH = 3
_READ_BYTES = 2**22

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    _BOOL: "<B",
    10: "<Q",
    11: "<q",
    12: "<d",
}
# The fewest bytes an array element of each kind takes: counts are checked against what is left.
_MIN_BYTES = {kind: struct.calcsize(code) for kind, code in _SCALARS.items()} | {
    _STRING: 8,
    _ARRAY: 12,
}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. shape is in numpy order: (rows, cols), or (n,) for a vector."""

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of its file."""
    n_bytes: int
    shard: int = 0
    """Which file of a split model."""


@dataclass(frozen=True)
class Header:
    """What stands before the tensor data of one file."""

    version: int
    alignment: int
    metadata: Metadata
    tensors: tuple[TensorInfo, ...]


def read_header(file: BinaryIO, size: int, name: str, shard: int = 0) -> Header:
    """Parse the header of an open file of `size` bytes; `name` is for messages.

    Raises InvalidModelFile naming the field, UnsupportedModelFormat for versions and types we lack.
    """
    cursor = _Cursor(file, size, name)
    version = _read_version(cursor)
    n_tensors = cursor.count("tensor count", MAX_TENSORS, min_bytes=24)
    n_keys = cursor.count("metadata count", MAX_KEYS, min_bytes=13)
    metadata = Metadata(_read_keys(cursor, n_keys))
    alignment = _alignment(metadata, name)
    drafts = [_read_tensor(cursor, i) for i in range(n_tensors)]
    start = -(-cursor.position // alignment) * alignment
    tensors = tuple(_place(draft, start, alignment, size, name, shard) for draft in drafts)
    _check_apart(tensors, name)
    return Header(version, alignment, metadata, tensors)


class _Cursor:
    """Reads forward through the header; every read says what it is for, so that errors can name
    it."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._buffer = bytearray()
        self.position = 0

    def error(self, what: str) -> InvalidModelFile:
        return InvalidModelFile(f"{self._name}: {what} (at byte {self.position})")

    @property
    def remaining(self) -> int:
        return self._size - self.position

    def ensure(self, n_bytes: int, what: str) -> None:
        """Have the next n_bytes in the buffer."""
        end = self.position + n_bytes
        if end > self._size:
            raise self.error(f"{what} needs {n_bytes} bytes, the file has {self.remaining} left")
        if end > MAX_HEADER_BYTES:
            raise self.error(f"{what} makes the header larger than {MAX_HEADER_BYTES} bytes")
        while len(self._buffer) < end:
            data = self._file.read(max(_READ_BYTES, end - len(self._buffer)))
            if not data:
                raise self.error(f"the file ended inside {what}; it was cut while it was read")
            self._buffer += data

    def take(self, n_bytes: int, what: str) -> bytes:
        self.ensure(n_bytes, what)
        start = self.position
        self.position += n_bytes
        return bytes(self._buffer[start : self.position])

    def scalar(self, code: str, what: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code), what))[0]

    def count(self, what: str, maximum: int, *, min_bytes: int) -> int:
        """A uint64 count of items that take at least min_bytes each."""
        value: int = self.scalar("<Q", what)
        if value > maximum or value * min_bytes > self.remaining:
            raise self.error(f"{what} is {value}, more than the file can hold")
        return value

    def string(self, what: str, maximum: int) -> str:
        length = self.scalar("<Q", f"the length of {what}")
        if length > maximum:
            raise self.error(f"{what} has {length} bytes, at most {maximum} are allowed")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is not valid UTF-8") from error

    def strings(self, n: int, what: str) -> StringArray:
        """n strings, found in one pass and decoded later."""
        lengths = np.empty(n, np.int64)
        first = self.position
        position, available = first, len(self._buffer)
        buffer, unpack = self._buffer, struct.Struct("<Q").unpack_from
        for i in range(n):
            if position + 8 > available:
                self.position = position
                self.ensure(8, f"{what}[{i}]")
                available = len(buffer)
            (length,) = unpack(buffer, position)
            position += 8 + length
            if position > available:
                self.position = position - length
                self.ensure(length, f"{what}[{i}]")
                available = len(buffer)
            lengths[i] = length
        self.position = position
        starts = np.cumsum(lengths + 8) - lengths
        return StringArray(bytes(buffer[first:position]), starts, lengths)


def _read_version(cursor: _Cursor) -> int:
    if cursor.take(4, "the magic number") != MAGIC:
        raise cursor.error("the file does not begin with GGUF: it is no GGUF model")
    version: int = cursor.scalar("<I", "the version")
    if version not in VERSIONS:
        if version & 0xFFFF == 0:
            raise UnsupportedModelFormat(
                "the file is big-endian GGUF; convert it to little endian (gguf-convert-endian)"
            )
        raise UnsupportedModelFormat(
            f"the file is GGUF version {version}; supported are {VERSIONS[0]} and {VERSIONS[1]}"
        )
    return version


def _read_keys(cursor: _Cursor, n_keys: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for i in range(n_keys):
        key = cursor.string(f"metadata key {i}", MAX_KEY_BYTES)
        if key in values:
            raise cursor.error(f"the metadata key {key!r} stands twice")
        kind = cursor.scalar("<I", f"the type of {key}")
        values[key] = _read_value(cursor, kind, key, 0)
    return values


def _read_value(cursor: _Cursor, kind: int, key: str, depth: int) -> Any:
    if kind == _STRING:
        return cursor.string(key, MAX_HEADER_BYTES)
    if kind == _ARRAY:
        return _read_array(cursor, key, depth)
    if kind not in _SCALARS:
        raise cursor.error(f"{key} has the unknown value type {kind}")
    value = cursor.scalar(_SCALARS[kind], key)
    if kind != _BOOL:
        return value
    if value > 1:
        raise cursor.error(f"{key} is a boolean with value {value}")
    return bool(value)


def _read_array(cursor: _Cursor, key: str, depth: int) -> Any:
    if depth >= MAX_ARRAY_DEPTH:
        raise cursor.error(f"{key} nests arrays deeper than {MAX_ARRAY_DEPTH}")
    kind = cursor.scalar("<I", f"the element type of {key}")
    if kind not in _MIN_BYTES:
        raise cursor.error(f"{key} is an array of the unknown value type {kind}")
    n = cursor.count(f"the length of {key}", 2**40, min_bytes=_MIN_BYTES[kind])
    if kind == _STRING:
        return cursor.strings(n, key)
    if kind == _ARRAY:
        return [_read_array(cursor, f"{key}[{i}]", depth + 1) for i in range(n)]
    dtype = np.dtype(_SCALARS[kind])
    array = np.frombuffer(cursor.take(n * dtype.itemsize, key), dtype)
    if kind != _BOOL:
        return array
    if (array > 1).any():
        raise cursor.error(f"{key} has booleans that are neither 0 nor 1")
    return array.astype(np.bool_)


def _alignment(metadata: Metadata, name: str) -> int:
    alignment = metadata.int_(
        "general.alignment", DEFAULT_ALIGNMENT, minimum=1, maximum=MAX_ALIGNMENT
    )
    if alignment & (alignment - 1):
        raise InvalidModelFile(f"{name}: general.alignment is {alignment}, not a power of two")
    return alignment


@dataclass(frozen=True)
class _Draft:
    """A tensor description before it is placed: its offset counts from the data section."""

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    offset: int


def _read_tensor(cursor: _Cursor, index: int) -> _Draft:
    name = cursor.string(f"the name of tensor {index}", MAX_NAME_BYTES)
    n_dims = cursor.scalar("<I", f"the number of dimensions of {name}")
    if not 1 <= n_dims <= MAX_DIMENSIONS:
        raise cursor.error(f"tensor {name} has {n_dims} dimensions, expected 1 to {MAX_DIMENSIONS}")
    dims = [cursor.scalar("<Q", f"dimension {d} of {name}") for d in range(n_dims)]
    if any(not 1 <= dim < 2**40 for dim in dims):
        raise cursor.error(f"tensor {name} has the impossible dimensions {dims}")
    type_id = cursor.scalar("<I", f"the type of {name}")
    offset = cursor.scalar("<Q", f"the offset of {name}")
    try:
        kind = GGMLType(type_id)
    except ValueError:
        raise UnsupportedModelFormat(
            f"tensor {name} has the tensor type {type_id}, which is not supported"
        ) from None
    return _Draft(name, kind, tuple(reversed(dims)), offset)


def _place(
    draft: _Draft, start: int, alignment: int, size: int, file: str, shard: int
) -> TensorInfo:
    form = FORMATS[draft.type]
    *outer, cols = draft.shape
    if cols % form.block_size:
        raise InvalidModelFile(
            f"{file}: a row of tensor {draft.name} has {cols} values, "
            f"not a multiple of the {form.block_size} of {form.name}"
        )
    n_bytes = cols // form.block_size * form.block_bytes
    for dim in outer:
        n_bytes *= dim
    if draft.offset % alignment:
        raise InvalidModelFile(
            f"{file}: the offset {draft.offset} of tensor {draft.name} "
            f"is not a multiple of {alignment}"
        )
    offset = start + draft.offset
    if offset + n_bytes > size:
        raise InvalidModelFile(
            f"{file}: tensor {draft.name} ends at byte {offset + n_bytes}, "
            f"the file at {size}; was the download cut?"
        )
    return TensorInfo(draft.name, draft.type, draft.shape, offset, n_bytes, shard)


def _check_apart(tensors: tuple[TensorInfo, ...], file: str) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise InvalidModelFile(f"{file}: the tensor {tensor.name!r} stands twice")
        names.add(tensor.name)
    ordered = sorted(tensors, key=lambda t: t.offset)
    for before, after in pairwise(ordered):
        if before.offset + before.n_bytes > after.offset:
            raise InvalidModelFile(
                f"{file}: the tensors {before.name!r} and {after.name!r} overlap"
            )
