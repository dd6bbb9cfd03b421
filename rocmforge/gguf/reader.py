"""Open GGUF files: headers with read(), tensor data over mmap, split models from any of their
shards."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

from rocmforge.errors import InvalidModelFile, IoError, MmapError
from rocmforge.gguf.header import Header, TensorInfo, read_header
from rocmforge.gguf.metadata import Metadata

__all__ = ["GGUFFile", "TensorInfo"]

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class GGUFFile:
    """A GGUF model, of one file or several.

    `metadata` is that of the first shard. With map_tensors=False nothing is mapped and
    tensor_bytes() cannot be used: a file that shrinks under a map kills the process that reads it
    (SIGBUS), and the server process must not die.
    """

    def __init__(self, paths: tuple[Path, ...], headers: tuple[Header, ...], *, mapped: bool):
        self.shard_paths = paths
        self.version = headers[0].version
        self.alignment = headers[0].alignment
        self.metadata: Metadata = headers[0].metadata
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(_merge(headers, paths))
        self._maps = [_map(path) for path in paths] if mapped else []

    @classmethod
    def open(cls, path: str | Path, *, map_tensors: bool = True) -> GGUFFile:
        """Open a model; any shard of a split one finds the others beside it.

        Raises IoError (cannot be read), MmapError (cannot be mapped), InvalidModelFile naming the
        damaged field, UnsupportedModelFormat (big-endian, other versions, unknown tensor types).
        """
        paths = _shards(Path(path))
        headers = tuple(_read(shard, i) for i, shard in enumerate(paths))
        _check_split(headers, paths)
        return cls(paths, headers, mapped=map_tensors)

    def tensor_bytes(self, name: str) -> memoryview:
        """The tensor's bytes as they lie in the file, read-only; valid until close()."""
        if not self._maps:
            raise MmapError(f"{self.shard_paths[0]} was opened without its tensors")
        info = self.tensors[name]
        view = memoryview(self._maps[info.shard])
        return view[info.offset : info.offset + info.n_bytes]

    def close(self) -> None:
        """Unmap; raises BufferError while views from tensor_bytes() are alive."""
        for mapping in self._maps:
            mapping.close()
        self._maps = []

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _read(path: Path, shard: int) -> Header:
    try:
        with path.open("rb") as file:
            return read_header(file, os.fstat(file.fileno()).st_size, path.name, shard)
    except OSError as error:
        raise IoError(f"cannot read the model file {path}: {error.strerror or error}") from error


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise MmapError(f"cannot map the model file {path}: {error}") from error


def _shards(path: Path) -> tuple[Path, ...]:
    match = _SHARD.search(path.name)
    if match is None:
        return (path,)
    count = int(match[2])
    if count < 1:
        raise InvalidModelFile(f"{path.name} names itself one of {count} shards")
    stem = path.name[: match.start()]
    paths = tuple(
        path.with_name(f"{stem}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)
    )
    missing = [p.name for p in paths if not p.is_file()]
    if missing and path.is_file():
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise IoError(f"{len(missing)} shards of {path.name} are missing beside it: {shown}")
    return paths


def _check_split(headers: tuple[Header, ...], paths: tuple[Path, ...]) -> None:
    for i, (header, path) in enumerate(zip(headers, paths, strict=True)):
        count = header.metadata.int_("split.count", 1, maximum=99_999)
        number = header.metadata.int_("split.no", 0, maximum=99_999)
        if max(count, 1) != len(paths) or number != i:
            raise InvalidModelFile(
                f"{path.name}: split.no and split.count say shard {number + 1} of {count}, "
                f"the name says {i + 1} of {len(paths)}"
            )
    stated = headers[0].metadata.int_("split.tensors.count", None, maximum=2**31 - 1)
    found = sum(len(header.tensors) for header in headers)
    if len(paths) > 1 and stated is not None and stated != found:
        raise InvalidModelFile(
            f"split.tensors.count is {stated}, but the shards hold {found} tensors"
        )


def _merge(headers: tuple[Header, ...], paths: tuple[Path, ...]) -> dict[str, TensorInfo]:
    merged: dict[str, TensorInfo] = {}
    for header, path in zip(headers, paths, strict=True):
        for tensor in header.tensors:
            if tensor.name in merged:
                raise InvalidModelFile(f"{path.name} repeats the tensor {tensor.name!r}")
            merged[tensor.name] = tensor
    return merged
