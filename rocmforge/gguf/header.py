"""The part of a GGUF file before its tensor data: magic, version, metadata, tensor descriptions.

Layout (GGUF specification, versions 2 and 3, little endian): `GGUF`, u32 version, u64 tensor count,
u64 key count; per key a string, a u32 kind and a value; per tensor a name, a u32 number of
dimensions, u64 dimensions (fastest first), a u32 type and a u64 offset into the data section, which
starts at the next multiple of `general.alignment`. A string is a u64 length and its bytes; an array
is a u32 kind, a u64 count and its items.

Every file is taken as hostile: a count or a length is compared with what is left of the file before
anything is allocated, and the fixed limits below bound time and memory whatever the file says.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from rocmforge.errors import InvalidModelFile, IoError, UnsupportedModelFormat
from rocmforge.gguf.metadata import SCALAR_DTYPES, StringArray, ValueKind
from rocmforge.gguf.string_scan import scan_strings
from rocmforge.quant.formats import FORMATS, GGMLType, row_bytes

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20

# Several times what the largest known files need: a vocabulary of 260 000 tokens with its merges,
# 100 keys, 100 000 tensors (one per expert).
MAX_HEADER_BYTES = 128 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_KEY_BYTES = 65535
MAX_TENSOR_NAME_BYTES = 1024
MAX_STRINGS_PER_ARRAY = 1 << 22
MAX_ARRAY_DEPTH = 4
MAX_NESTED_ARRAYS = 1 << 16
MAX_DIMENSIONS = 4
MAX_TENSOR_VALUES = 1 << 50

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_FIRST_READ = 1 << 20
# An empty key with a one-byte value; a tensor with an empty name and one dimension.
_LEAST_KEY_BYTES = 8 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8


@dataclass(frozen=True)
class TensorEntry:
    """A tensor as a shard describes it; `start` is the byte offset in that file."""

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    """numpy order: slowest dimension first."""
    start: int
    n_bytes: int


@dataclass(frozen=True)
class Header:
    """What one file says before its tensor data."""

    version: int
    alignment: int
    values: dict[str, Any]
    tensors: list[TensorEntry]


def read_header(fd: int, size: int, label: str) -> Header:
    """Read and check the header of the file `fd` of `size` bytes; `label` names it in errors.

    Raises InvalidModelFile (naming field and byte offset), UnsupportedModelFormat or IoError.
    """
    return _HeaderReader(fd, size, label).read()


class _HeaderReader:
    """A cursor over the file; bytes are read in growing pieces as the header asks for them."""

    def __init__(self, fd: int, size: int, label: str) -> None:
        self.fd = fd
        self.size = size
        self.label = label
        self.data = bytearray()
        self.position = 0
        self.nested_arrays = 0
        self.field = "header"

    def read(self) -> Header:
        version = self.read_version()
        n_tensors = self.count("tensor count", _LEAST_TENSOR_BYTES, MAX_TENSORS)
        n_keys = self.count("key count", _LEAST_KEY_BYTES, MAX_KEYS)
        values: dict[str, Any] = {}
        for index in range(n_keys):
            self.field = f"key {index}"
            key = self.name(MAX_KEY_BYTES)
            if key in values:
                self.fail(f"metadata key {key!r} appears twice")
            self.field = f"metadata key {key[:200]!r}"
            values[key] = self.value(self.kind())
        alignment = self.alignment(values)
        entries = self.tensor_entries(n_tensors, alignment)
        return Header(version, alignment, values, entries)

    # -- bytes -----------------------------------------------------------------------------------

    def fail(self, problem: str) -> NoReturn:
        raise InvalidModelFile(
            f"{self.label}: {problem} (byte {self.position}); the file is damaged, fetch it again"
        )

    @property
    def remaining(self) -> int:
        """Bytes of the file after the cursor."""
        return self.size - self.position

    def need(self, n_bytes: int) -> None:
        """Make `n_bytes` after the cursor available in `data`, or fail."""
        end = self.position + n_bytes
        if end <= len(self.data):
            return
        if n_bytes > self.remaining:
            left = max(0, self.remaining)
            self.fail(f"{self.field} needs {n_bytes} bytes more, but the file has {left} left")
        if end > MAX_HEADER_BYTES:
            self.fail(f"{self.field} ends beyond the limit of {MAX_HEADER_BYTES} header bytes")
        wanted = min(self.size, max(end, 2 * len(self.data), _FIRST_READ))
        while (have := len(self.data)) < wanted:
            try:
                piece = os.pread(self.fd, wanted - have, have)
            except OSError as error:
                raise IoError(f"cannot read {self.label}: {error.strerror}") from error
            if not piece:
                self.fail("the file became shorter while it was read")
            self.data += piece

    def take(self, n_bytes: int) -> bytes:
        self.need(n_bytes)
        start = self.position
        self.position += n_bytes
        return bytes(memoryview(self.data)[start : self.position])

    def u32(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self.take(8))[0])

    def count(self, what: str, least_bytes: int, limit: int) -> int:
        """A u64 number of things that take at least `least_bytes` each."""
        self.field = what
        value = self.u64()
        if value * least_bytes > self.remaining:
            self.fail(f"the {what} {value} does not fit into {self.remaining} bytes")
        if value > limit:
            self.fail(f"the {what} {value} is above the limit of {limit}")
        return value

    def string_bytes(self, limit: int | None = None) -> bytes:
        length = self.u64()
        if limit is not None and length > limit:
            self.fail(f"{self.field}: a name of {length} bytes, at most {limit} are allowed")
        return self.take(length)

    def name(self, limit: int) -> str:
        raw = self.string_bytes(limit)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{self.field}: the name {raw[:60]!r} is not UTF-8")
        if not text:
            self.fail(f"{self.field}: the name is empty")
        return text

    # -- metadata --------------------------------------------------------------------------------

    def read_version(self) -> int:
        self.field = "magic"
        magic = self.take(4)
        if magic in (b"ggml", b"lmgg", b"ggmf", b"fmgg", b"ggjt", b"tjgg", b"ggla", b"algg"):
            raise UnsupportedModelFormat(
                f"{self.label} is of a format that GGUF replaced in 2023; convert the model to GGUF"
            )
        if magic != MAGIC:
            self.fail(f"not a GGUF file: it starts with {magic!r} instead of {MAGIC!r}")
        self.field = "version"
        version = self.u32()
        if version in SUPPORTED_VERSIONS:
            return version
        if version and version & 0xFFFF == 0:
            raise UnsupportedModelFormat(
                f"{self.label} is a big-endian GGUF file; convert it to little endian "
                "(gguf_convert_endian.py of the gguf package)"
            )
        raise UnsupportedModelFormat(
            f"{self.label} has GGUF version {version}; supported are 2 and 3: convert it again "
            "with a current converter"
        )

    def kind(self) -> ValueKind:
        number = self.u32()
        try:
            return ValueKind(number)
        except ValueError:
            self.fail(f"{self.field} has the unknown value kind {number}")

    def value(self, kind: ValueKind) -> Any:
        if kind is ValueKind.ARRAY:
            return self.array(1)
        if kind is ValueKind.STRING:
            return self.string_bytes().decode("utf-8", "replace")
        return self.numbers(kind, 1)[0].item()

    def numbers(self, kind: ValueKind, count: int) -> Any:
        """`count` numbers or flags as a read-only numpy array in native byte order."""
        dtype = SCALAR_DTYPES[kind]
        raw = self.take(count * dtype.itemsize)
        if kind is ValueKind.BOOL and raw and max(raw) > 1:
            self.fail(f"{self.field} has a boolean that is neither 0 nor 1")
        return np.frombuffer(raw, dtype)

    def array(self, depth: int) -> Any:
        field = self.field
        kind = self.kind()
        if kind is ValueKind.ARRAY:
            least, limit = 12, MAX_NESTED_ARRAYS
        elif kind is ValueKind.STRING:
            least, limit = 8, MAX_STRINGS_PER_ARRAY
        else:
            least, limit = SCALAR_DTYPES[kind].itemsize, MAX_HEADER_BYTES
        count = self.count(f"item count of {field}", least, limit)
        self.field = field
        if kind is ValueKind.STRING:
            return self.strings(count)
        if kind is not ValueKind.ARRAY:
            return self.numbers(kind, count)
        self.nested_arrays += count
        if depth >= MAX_ARRAY_DEPTH or self.nested_arrays > MAX_NESTED_ARRAYS:
            self.fail(
                f"{field} is nested deeper than {MAX_ARRAY_DEPTH} or has more than "
                f"{MAX_NESTED_ARRAYS} arrays inside"
            )
        return [self.array(depth + 1) for _ in range(count)]

    def strings(self, count: int) -> StringArray:
        """Find where each string lies, without decoding any."""
        first = position = self.position
        parts: list[npt.NDArray[np.int64]] = []
        n_found = 0
        while n_found < count:
            self.position = position
            self.need(8)
            lengths, position = scan_strings(self.data, position, count - n_found, self.size)
            if not len(lengths):
                self.need(8 + self.u64())  # fails: the string ends behind the file
            parts.append(lengths)
            n_found += len(lengths)
        self.position = first
        raw = self.take(position - first)
        sizes = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])
        starts = np.cumsum(sizes + 8) - sizes
        return StringArray(raw, starts, sizes)

    # -- tensors ---------------------------------------------------------------------------------

    def alignment(self, values: dict[str, Any]) -> int:
        value = values.get("general.alignment", DEFAULT_ALIGNMENT)
        valid = isinstance(value, int) and not isinstance(value, bool)
        if not valid or not 8 <= value <= MAX_ALIGNMENT or value & (value - 1):
            self.fail(
                f"general.alignment is {str(value)[:40]}, expected a power of two from 8 to "
                f"{MAX_ALIGNMENT}"
            )
        return int(value)

    def tensor_entries(self, n_tensors: int, alignment: int) -> list[TensorEntry]:
        described: list[tuple[str, GGMLType, tuple[int, ...], int]] = []
        names: set[str] = set()
        for index in range(n_tensors):
            self.field = f"tensor {index}"
            name = self.name(MAX_TENSOR_NAME_BYTES)
            if name in names:
                self.fail(f"tensor {name!r} appears twice")
            names.add(name)
            self.field = f"tensor {name[:200]!r}"
            shape = self.shape()
            type_ = self.tensor_type()
            offset = self.u64()
            if offset % alignment:
                self.fail(f"{self.field}: offset {offset} is no multiple of {alignment}")
            described.append((name, type_, shape, offset))
        data_start = -(-self.position // alignment) * alignment
        entries = [
            self.placed(name, type_, shape, data_start + offset)
            for name, type_, shape, offset in described
        ]
        self.check_overlap(entries)
        return entries

    def shape(self) -> tuple[int, ...]:
        n_dims = self.u32()
        if not 1 <= n_dims <= MAX_DIMENSIONS:
            self.fail(f"{self.field} has {n_dims} dimensions, expected 1 to {MAX_DIMENSIONS}")
        sizes = [self.u64() for _ in range(n_dims)]
        values = 1
        for size in sizes:
            values *= size
        if not 1 <= values <= MAX_TENSOR_VALUES:
            self.fail(f"{self.field} has the impossible dimensions {sizes}")
        return tuple(reversed(sizes))

    def tensor_type(self) -> GGMLType:
        number = self.u32()
        try:
            return GGMLType(number)
        except ValueError:
            raise UnsupportedModelFormat(
                f"{self.label}: {self.field} has tensor type {number}, which is not supported "
                "(removed from ggml, or newer than this version); use another quantisation"
            ) from None

    def placed(self, name: str, type_: GGMLType, shape: tuple[int, ...], start: int) -> TensorEntry:
        cols = shape[-1]
        if cols % FORMATS[type_].block_size:
            self.fail(
                f"tensor {name!r}: rows of {cols} values are no whole {type_.name} blocks of "
                f"{FORMATS[type_].block_size}"
            )
        rows = 1
        for size in shape[:-1]:
            rows *= size
        n_bytes = rows * row_bytes(type_, cols)
        if start + n_bytes > self.size:
            self.fail(
                f"tensor {name!r} ends at byte {start + n_bytes}, but the file has {self.size}"
            )
        return TensorEntry(name, type_, shape, start, n_bytes)

    def check_overlap(self, entries: list[TensorEntry]) -> None:
        by_start = sorted(entries, key=lambda entry: entry.start)
        for before, after in pairwise(by_start):
            if before.start + before.n_bytes > after.start:
                self.fail(f"the data of tensors {before.name!r} and {after.name!r} overlap")
