"""Weights in shared memory, which outlive the engine that packed them.

A memfd that the server makes and never maps. The first engine packs the weights behind a header of
one page, and then seals the file: from then on nobody can change or shrink it. A later engine maps
it read-only. A file without its seals, or without a whole header, was left half-written and is
never used; the header names the model, the layout and a checksum of the content.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

HEADER_BYTES: Final = 4096
# To be raised with every change of native/layout.h or of the order and types that a backend packs
# in: an engine of another version of the program must not read what this one wrote.
LAYOUT_VERSION: Final = 1
_MAGIC: Final = b"RFWEIGHT"
_DIGEST_BYTES: Final = 32
# magic, layout version, bytes of weights, identity of the files, checksum of the weights
_FIELDS: Final = struct.Struct(f"<8sQQ{_DIGEST_BYTES}sQ")


@dataclass(frozen=True)
class StoreHeader:
    """What the memory holds. identity: `file_identity` of the model and how it was packed."""

    n_bytes: int
    identity: bytes
    checksum: int

    def pack(self) -> bytes:
        """HEADER_BYTES bytes, which end with a digest of the rest."""
        fields = _FIELDS.pack(_MAGIC, LAYOUT_VERSION, self.n_bytes, self.identity, self.checksum)
        page = fields.ljust(HEADER_BYTES - _DIGEST_BYTES, b"\0")
        return page + _digest(page)

    @classmethod
    def unpack(cls, page: bytes) -> StoreHeader | None:
        """The header in these bytes; None when they are no whole header of this layout."""
        body, digest = page[:-_DIGEST_BYTES], page[-_DIGEST_BYTES:]
        if len(page) != HEADER_BYTES or _digest(body) != digest:
            return None
        magic, version, n_bytes, identity, checksum = _FIELDS.unpack_from(body)
        if magic != _MAGIC or version != LAYOUT_VERSION:
            return None
        return cls(n_bytes, identity, checksum)


@dataclass
class WeightsStore:
    """A store and the weights that are wanted of it. was_reused: whether it had them."""

    fd: int
    identity: bytes
    was_reused: bool = False


def file_identity(paths: Iterable[str | os.PathLike[str]], packing: str = "") -> bytes:
    """Digest of which files these are and of their last change; `packing`: whatever else decides
    what the weights look like. Raises OSError for a file that is not there.
    """
    items = [packing]
    for path in paths:
        stat = os.stat(path)
        items.append(f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}")
    return _digest("\n".join(items).encode())


def create_store() -> int | None:
    """File descriptor of an empty store; None where there is no such memory."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        return os.memfd_create("rocmforge-weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        # Some sandboxes refuse it; the engine has memory of its own then.
        return None


def read_header(fd: int) -> StoreHeader | None:
    """The header of a store that is sealed and whole; None for every other file."""
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _all_seals() != _all_seals():
            return None
        header = StoreHeader.unpack(os.pread(fd, HEADER_BYTES, 0))
        whole = header is not None and os.fstat(fd).st_size == HEADER_BYTES + header.n_bytes
    except OSError:
        return None
    return header if whole else None


def seal(fd: int, header: StoreHeader) -> None:
    """Write the header and let nobody change the file any more. Raises OSError when the kernel
    refuses, as it does while the file is mapped to be written.
    """
    os.pwrite(fd, header.pack(), 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _all_seals())


@contextlib.contextmanager
def read_only(fd: int) -> Iterator[int]:
    """The same file, opened for reading alone: older kernels map a sealed file in no other way.

    Raises OSError without /proc.
    """
    reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield reader
    finally:
        os.close(reader)


def _all_seals() -> int:
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    return int(seals)


def _digest(data: bytes) -> bytes:
    # A server launches its first engine before it imports anything that takes long.
    import hashlib

    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
