"""Write GGUF files (version 3, little endian).

    writer = GGUFWriter(path, "llama")
    writer.add("llama.block_count", 2)
    writer.add_tensor("output.weight", (64, 32), GGMLType.F32, array)
    writer.write()

The file appears under its name only when it is complete: it is written beside it, flushed to the
disk and renamed. Tensor data is written straight from the buffers that were given.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from rocmforge.errors import InvalidConfiguration, InvalidTensorShape, IoError
from rocmforge.gguf.header import DEFAULT_ALIGNMENT, MAGIC, MAX_ALIGNMENT
from rocmforge.gguf.metadata import SCALAR_DTYPES, StringArray, ValueKind
from rocmforge.quant.formats import FORMATS, GGMLType, row_bytes

_VERSION = 3
_KIND_OF_DTYPE = {dtype: kind for kind, dtype in SCALAR_DTYPES.items()}
_NATIVE_DTYPES = {
    GGMLType.F32: np.dtype("<f4"),
    GGMLType.F16: np.dtype("<f2"),
    GGMLType.F64: np.dtype("<f8"),
    GGMLType.I8: np.dtype("<i1"),
    GGMLType.I16: np.dtype("<i2"),
    GGMLType.I32: np.dtype("<i4"),
    GGMLType.I64: np.dtype("<i8"),
}


@dataclass(frozen=True)
class _Tensor:
    name: str
    type: GGMLType
    shape: tuple[int, ...]
    data: memoryview


class GGUFWriter:
    """Collects metadata and tensors in order; `write()` makes the file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        architecture: str | None = None,
        *,
        alignment: int = DEFAULT_ALIGNMENT,
    ) -> None:
        if not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise InvalidConfiguration(
                f"alignment must be a power of two from 8 to {MAX_ALIGNMENT}, got {alignment}"
            )
        self._path = Path(path)
        self._alignment = alignment
        self._values: dict[str, bytes] = {}
        self._tensors: dict[str, _Tensor] = {}
        if architecture is not None:
            self.add("general.architecture", architecture)
        if alignment != DEFAULT_ALIGNMENT:
            self.add("general.alignment", alignment, ValueKind.UINT32)

    def add(self, key: str, value: Any, kind: ValueKind | None = None) -> None:
        """Add a metadata value; raises InvalidConfiguration for a second value of a key.

        Without `kind`: bool, str, int (the smallest of UINT32, INT32, UINT64, INT64 that holds it),
        float (FLOAT32), numpy arrays of their own type, and sequences of these (one type for all
        items; integers of a list get one that holds every item). With `kind`: that type for the
        value, or for each item of a sequence.
        """
        if not key or key in self._values:
            raise InvalidConfiguration(f"metadata key {key!r} is empty or was added before")
        self._values[key] = _encoded(value, kind, key)

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        type_: GGMLType,
        data: bytes | bytearray | memoryview | npt.NDArray[Any],
    ) -> None:
        """Add a tensor of `shape` in numpy order. `data` holds its bytes in the file's layout, or
        is an array of the numbers of a plain type (F32 F16 F64 I8 I16 I32 I64).

        Raises InvalidTensorShape when shape and data do not fit, InvalidConfiguration when the name
        is empty or taken. The data is not copied: keep it unchanged until `write()`.
        """
        if not name or name in self._tensors:
            raise InvalidConfiguration(f"tensor name {name!r} is empty or was added before")
        sizes = tuple(int(size) for size in shape)
        if not 1 <= len(sizes) <= 4 or min(sizes) < 1:
            raise InvalidTensorShape(f"tensor {name}: impossible shape {sizes}")
        view = _tensor_view(name, type_, data)
        expected = row_bytes(type_, sizes[-1]) * int(np.prod(sizes[:-1], dtype=object))
        if view.nbytes != expected:
            raise InvalidTensorShape(
                f"tensor {name}: {FORMATS[type_].name} {sizes} takes {expected} bytes, "
                f"got {view.nbytes}"
            )
        self._tensors[name] = _Tensor(name, type_, sizes, view)

    def write(self) -> None:
        """Write the file, replacing one of that name; raises IoError, leaving the old file
        alone."""
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.part")
        try:
            with open(temporary, "xb") as out:
                self._write_to(out)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, self._path)
        except OSError as error:
            raise IoError(f"cannot write {self._path}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):  # gone after the rename, or never made
                temporary.unlink()

    def _write_to(self, out: BinaryIO) -> None:
        out.write(MAGIC + struct.pack("<IQQ", _VERSION, len(self._tensors), len(self._values)))
        for key, encoded in self._values.items():
            out.write(_string(key) + encoded)
        offset = 0
        for tensor in self._tensors.values():
            sizes = tensor.shape[::-1]
            out.write(_string(tensor.name))
            out.write(struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, tensor.type, offset))
            offset += tensor.data.nbytes + self._padding(tensor.data.nbytes)
        out.write(bytes(self._padding(out.tell())))
        for tensor in self._tensors.values():
            out.write(tensor.data)
            out.write(bytes(self._padding(tensor.data.nbytes)))

    def _padding(self, n_bytes: int) -> int:
        return -n_bytes % self._alignment


def _tensor_view(
    name: str, type_: GGMLType, data: bytes | bytearray | memoryview | npt.NDArray[Any]
) -> memoryview:
    if isinstance(data, np.ndarray) and data.dtype != np.uint8:
        dtype = _NATIVE_DTYPES.get(type_)
        if dtype is None or data.dtype != dtype:
            raise InvalidTensorShape(
                f"tensor {name}: an array of {data.dtype} is no {FORMATS[type_].name}; encode it, "
                "or pass its bytes"
            )
    if isinstance(data, np.ndarray):
        # An empty view cannot be cast, so the bytes are taken through numpy.
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    return memoryview(data).cast("B")


def _string(text: str | bytes) -> bytes:
    raw = text.encode("utf-8") if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _encoded(value: Any, kind: ValueKind | None, key: str) -> bytes:
    """The value's kind and bytes as they stand after the key."""
    if isinstance(value, np.ndarray | StringArray | list | tuple):
        return struct.pack("<I", ValueKind.ARRAY) + _encoded_array(value, kind, key)
    found = kind if kind is not None else _kind_of([value], key)
    return struct.pack("<I", found) + _items([value], found, key)


def _encoded_array(values: Any, kind: ValueKind | None, key: str) -> bytes:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InvalidConfiguration(f"{key}: an array must have one dimension")
        found = kind if kind is not None else _KIND_OF_DTYPE.get(values.dtype)
        if found is None:
            raise InvalidConfiguration(f"{key}: arrays of {values.dtype} cannot be stored")
        return struct.pack("<IQ", found, len(values)) + _items(values, found, key)
    if len(values) and isinstance(values[0], np.ndarray | StringArray | list | tuple):
        head = struct.pack("<IQ", ValueKind.ARRAY, len(values))
        return head + b"".join(_encoded_array(inner, kind, key) for inner in values)
    if kind is None and not len(values):
        raise InvalidConfiguration(f"{key}: an empty array needs a kind")
    found = kind if kind is not None else _kind_of(values, key)
    return struct.pack("<IQ", found, len(values)) + _items(values, found, key)


def _kind_of(values: Sequence[Any], key: str) -> ValueKind:
    if isinstance(values, StringArray) or all(isinstance(v, str | bytes) for v in values):
        return ValueKind.STRING
    if all(isinstance(v, bool | np.bool_) for v in values):
        return ValueKind.BOOL
    if all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values):
        least, most = min(values), max(values)
        for kind in (ValueKind.UINT32, ValueKind.INT32, ValueKind.UINT64, ValueKind.INT64):
            limits = np.iinfo(SCALAR_DTYPES[kind])
            if limits.min <= least and most <= limits.max:
                return kind
    if all(isinstance(v, float | np.floating) for v in values):
        return ValueKind.FLOAT32
    raise InvalidConfiguration(f"{key}: the value is too large, or its items are of mixed types")


def _items(values: Any, kind: ValueKind, key: str) -> bytes:
    """The items one after the other, checked against their kind."""
    if kind is ValueKind.STRING:
        if isinstance(values, StringArray):
            return b"".join(_string(values.raw(i)) for i in range(len(values)))
        if not all(isinstance(value, str | bytes) for value in values):
            raise InvalidConfiguration(f"{key}: expected strings")
        return b"".join(_string(value) for value in values)
    if kind is ValueKind.ARRAY:
        raise InvalidConfiguration(f"{key}: name the kind of the items, not ARRAY")
    dtype = SCALAR_DTYPES[kind]
    given = np.asarray(values)
    try:
        # Through Python numbers: numpy then refuses integers that the type cannot hold.
        items = np.array(given.tolist(), dtype)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidConfiguration(f"{key}: not a {kind.name}: {error}") from error
    if dtype.kind in "biu" and (given.dtype.kind not in "biu" or not np.array_equal(items, given)):
        raise InvalidConfiguration(f"{key}: not a {kind.name}")
    return items.tobytes()
