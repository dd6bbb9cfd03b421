"""GGUF model files: metadata, tensor descriptions and, mapped into memory, tensor data.

The header is read with read(); tensor data is mapped only when it is asked for, because a file that
is truncated while it is mapped kills the process that touches it. A process that has to survive
that opens with `map_tensors=False`.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from rocmforge.errors import InternalError, InvalidModelFile, IoError, MmapError, TensorNotFound
from rocmforge.gguf.header import MAX_TENSORS, Header, TensorEntry, read_header
from rocmforge.gguf.metadata import Metadata
from rocmforge.quant.formats import GGMLType

_SPLIT_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.S)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the model. `shape` is in numpy order: (n,), (rows, cols), (experts, rows, cols).

    `start` is the byte offset of its data in the file `shard_paths[shard]`.
    """

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    n_bytes: int
    shard: int
    start: int


@dataclass
class _Shard:
    path: Path
    header: Header
    map: mmap.mmap | None


class GGUFFile:
    """An open model: one file, or all files of a split model. A context manager."""

    def __init__(self, shards: list[_Shard], tensors: dict[str, TensorInfo]) -> None:
        first = shards[0].header
        self._maps = [shard.map for shard in shards]
        self.version = first.version
        self.alignment = first.alignment
        self.metadata = Metadata(first.values)
        self.shard_paths = tuple(shard.path for shard in shards)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, map_tensors: bool = True) -> Self:
        """Open a model by its file, or by any one file of a split model (all must be beside it).

        Raises InvalidModelFile naming the field, UnsupportedModelFormat (GGUF version, tensor type,
        byte order), IoError or MmapError.
        """
        opened = Path(path)
        shard = _open_shard(opened, map_tensors)
        count, number = _split_position(shard)
        if count == 1:
            return cls([shard], _collect([shard]))
        shards = [
            shard if i == number else _open_shard(sibling, map_tensors)
            for i, sibling in enumerate(_siblings(opened, count, number))
        ]
        for i, other in enumerate(shards):
            if _split_position(other) != (count, i):
                raise InvalidModelFile(
                    f"{other.path.name}: split.no and split.count do not say that it is file "
                    f"{i + 1} of {count}; files of different models are mixed"
                )
        tensors = _collect(shards)
        total = Metadata(shards[0].header.values).int_("split.tensors.count", len(tensors))
        if total != len(tensors):
            raise InvalidModelFile(
                f"{shards[0].path.name}: split.tensors.count is {total}, but the {count} files "
                f"have {len(tensors)} tensors"
            )
        return cls(shards, tensors)

    def tensor_bytes(self, name: str) -> memoryview:
        """The tensor's bytes as they lie in the file, read-only, valid as long as the view is held.

        Raises TensorNotFound; InternalError when opened without its tensors or after close().
        """
        info = self.tensors.get(name)
        if info is None:
            raise TensorNotFound(f"{self.shard_paths[0].name} has no tensor {name!r}")
        mapped = self._maps[info.shard] if self._maps else None
        if mapped is None:
            raise InternalError("the model file is closed or was opened with map_tensors=False")
        return memoryview(mapped)[info.start : info.start + info.n_bytes]

    def release(self, name: str, begin: int, end: int) -> None:
        """Let the kernel take bytes `begin` to `end` of a tensor out of this process's memory; they
        are read again from the file when they are touched. Does nothing without a map.

        Raises TensorNotFound.
        """
        info = self.tensors.get(name)
        if info is None:
            raise TensorNotFound(f"{self.shard_paths[0].name} has no tensor {name!r}")
        mapped = self._maps[info.shard] if self._maps else None
        if mapped is not None and begin < end:
            first = (info.start + begin) // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, first, info.start + end - first)

    def close(self) -> None:
        """Let go of the files; each is unmapped when the last view of it is gone."""
        self._maps = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _open_shard(path: Path, map_tensors: bool) -> _Shard:
    try:
        # O_NONBLOCK: opening a named pipe would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise IoError(f"cannot open the model file {path}: {reason}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise IoError(f"cannot open the model file {path}: it is not a regular file")
        header = read_header(fd, status.st_size, path.name)
        mapped = _map(fd, path, status.st_size) if map_tensors and header.tensors else None
    finally:
        os.close(fd)
    return _Shard(path, header, mapped)


def _map(fd: int, path: Path, size: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise MmapError(f"cannot map {path} ({size} bytes) into memory: {error}") from error


def _split_position(shard: _Shard) -> tuple[int, int]:
    """(number of files, index of this one); (1, 0) for a model in one file."""
    metadata = Metadata(shard.header.values)
    count: int = metadata.int_("split.count", 0, maximum=99_999)
    if count <= 1:
        return 1, 0
    return count, metadata.int_("split.no", maximum=count - 1)


def _siblings(path: Path, count: int, number: int) -> list[Path]:
    match = _SPLIT_NAME.fullmatch(path.name)
    if match is None or (int(match["number"]), int(match["count"])) != (number + 1, count):
        raise InvalidModelFile(
            f"{path.name} is file {number + 1} of {count} of a split model, so its name must end "
            f"in -{number + 1:05d}-of-{count:05d}.gguf: give the files their names back"
        )
    names = [f"{match['prefix']}-{i + 1:05d}-of-{count:05d}.gguf" for i in range(count)]
    return [path.with_name(name) for name in names]


def _collect(shards: list[_Shard]) -> dict[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    for number, shard in enumerate(shards):
        for entry in shard.header.tensors:
            if entry.name in found:
                raise InvalidModelFile(
                    f"{shard.path.name}: tensor {entry.name!r} is in another file of the split too"
                )
            found[entry.name] = _info(entry, number)
        if len(found) > MAX_TENSORS:
            raise InvalidModelFile(f"{shard.path.name}: more than {MAX_TENSORS} tensors in all")
    return found


def _info(entry: TensorEntry, shard: int) -> TensorInfo:
    return TensorInfo(entry.name, entry.type, entry.shape, entry.n_bytes, shard, entry.start)
