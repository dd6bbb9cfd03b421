"""Write GGUF version 3 files: metadata, then tensors, each aligned; the file appears when it is
whole."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from rocmforge.errors import InvalidTensorShape, IoError, UnsupportedModelFormat
from rocmforge.gguf.header import DEFAULT_ALIGNMENT, MAGIC
from rocmforge.quant.formats import GGMLType, row_bytes

_KINDS = {
    "uint8": (0, "<B"),
    "int8": (1, "<b"),
    "uint16": (2, "<H"),
    "int16": (3, "<h"),
    "uint32": (4, "<I"),
    "int32": (5, "<i"),
    "float32": (6, "<f"),
    "bool": (7, "<?"),
    "uint64": (10, "<Q"),
    "int64": (11, "<q"),
    "float64": (12, "<d"),
}
_STRING_ID, _ARRAY_ID = 8, 9
VERSION = 3

TensorData = bytes | memoryview | npt.NDArray[Any]


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: GGMLType
    data: TensorData
    n_bytes: int


class GGUFWriter:
    """Collects metadata and tensors, and writes them in one go.

    `path` is replaced only when everything has been written. Tensors are kept by reference until
    then.
    """

    def __init__(
        self, path: str | Path, architecture: str | None = None, *, alignment: int | None = None
    ) -> None:
        self._path = Path(path)
        self._alignment = alignment or DEFAULT_ALIGNMENT
        self._metadata: dict[str, bytes] = {}
        self._tensors: dict[str, _Tensor] = {}
        if architecture is not None:
            self.add("general.architecture", architecture)
        if alignment is not None:
            self.add("general.alignment", alignment, "uint32")

    def add(self, key: str, value: Any, kind: str | None = None) -> None:
        """Set a metadata value. `kind` is an element type such as `uint32` or `float32`.

        Without a kind: bool, str, float → float32, int → uint32 (int32 when negative, 64 bits when
        it needs them), sequences by their first element, numpy arrays by their dtype. Raises
        UnsupportedModelFormat.
        """
        self._metadata[key] = _typed(value, kind, key)

    def add_tensor(
        self, name: str, shape: Sequence[int], type_: GGMLType, data: TensorData
    ) -> None:
        """Add a tensor; `shape` in numpy order, `data` its bytes in the type's layout.

        Raises InvalidTensorShape when the data has another size than shape and type say.
        """
        *outer, cols = shape
        n_bytes = row_bytes(type_, cols)
        for dim in outer:
            n_bytes *= dim
        given = memoryview(data).nbytes
        if given != n_bytes:
            raise InvalidTensorShape(
                f"tensor {name} of shape {tuple(shape)} takes {n_bytes} bytes as {type_.name}, "
                f"got {given}"
            )
        self._tensors[name] = _Tensor(name, tuple(shape), type_, data, n_bytes)

    def write(self) -> None:
        """Write the file; raises IoError."""
        partial = self._path.with_name(self._path.name + ".partial")
        try:
            with partial.open("wb") as file:
                self._write(file)
            os.replace(partial, self._path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise IoError(f"cannot write {self._path}: {error.strerror}") from error

    def _write(self, file: BinaryIO) -> None:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(self._tensors), len(self._metadata)))
        for key, value in self._metadata.items():
            file.write(_string(key) + value)
        offset = 0
        for tensor in self._tensors.values():
            dims = tensor.shape[::-1]
            file.write(_string(tensor.name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
            file.write(struct.pack("<IQ", tensor.type, offset))
            offset += self._padded(tensor.n_bytes)
        self._pad(file)
        for tensor in self._tensors.values():
            data = tensor.data
            file.write(np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data)
            self._pad(file)

    def _padded(self, n_bytes: int) -> int:
        return -(-n_bytes // self._alignment) * self._alignment

    def _pad(self, file: BinaryIO) -> None:
        position = file.tell()
        file.write(bytes(self._padded(position) - position))


def _string(text: str | bytes) -> bytes:
    data = text.encode("utf-8") if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _typed(value: Any, kind: str | None, key: str) -> bytes:
    """The value with its type id before it."""
    if isinstance(value, str | bytes):
        return struct.pack("<I", _STRING_ID) + _string(value)
    if isinstance(value, bool | np.bool_ | int | float | np.integer | np.floating):
        type_id, code = _KINDS[kind or _kind_of(value)]
        return struct.pack("<I", type_id) + struct.pack(code, value)
    return struct.pack("<I", _ARRAY_ID) + _array(value, kind, key)


def _array(value: Any, kind: str | None, key: str) -> bytes:
    if isinstance(value, np.ndarray):
        kind = kind or value.dtype.name
    n = len(value)
    if n and isinstance(value[0], str | bytes):
        return struct.pack("<IQ", _STRING_ID, n) + b"".join(_string(item) for item in value)
    if n and isinstance(value[0], list | tuple):
        return struct.pack("<IQ", _ARRAY_ID, n) + b"".join(_array(v, kind, key) for v in value)
    kind = kind or ("string" if not n else _kind_of_all(value))
    if kind == "string":
        return struct.pack("<IQ", _STRING_ID, 0)
    if kind not in _KINDS:
        raise UnsupportedModelFormat(f"{key}: GGUF has no value type {kind}")
    type_id, code = _KINDS[kind]
    dtype = np.dtype(code if kind != "bool" else np.bool_)
    return struct.pack("<IQ", type_id, n) + np.asarray(value, dtype).tobytes()


def _kind_of(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, float | np.floating):
        return "float32"
    if value < 0:
        return "int32" if value >= -(2**31) else "int64"
    return "uint32" if value < 2**32 else "uint64"


def _kind_of_all(values: Sequence[Any]) -> str:
    kinds = {_kind_of(value) for value in values}
    for kind in ("bool", "float32", "uint64", "int64"):
        if kind in kinds:
            return kind
    # Signed as soon as one is negative: token types and the like.
    return "int32" if max(values) < 2**31 else "int64" if "int32" in kinds else "uint32"
