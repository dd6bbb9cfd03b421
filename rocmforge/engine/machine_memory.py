"""How much memory this process can still take: the machine's, or less in a container's limit.

A limit of any control group on the way up to the root counts, because the kernel enforces each:
those of version 2 (`memory.max`, `memory.high`) and those of version 1, which many machines mount
beside version 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
# Version 1 says "no limit" with the largest multiple of a page below 2^63.
_NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class AvailableMemory:
    """Bytes that can still be taken, and which limit says so: `machine` or a control group's file.

    limit_bytes: all that the control group may use; None for the machine.
    """

    n_bytes: int
    source: str
    limit_bytes: int | None = None

    def describe(self) -> str:
        """For a message to the operator."""
        if self.limit_bytes is None:
            return "the machine's free memory"
        return f"the limit of {self.limit_bytes / 1e9:.2f} GB in {self.source}"


def available_bytes(root: Path = _ROOT) -> int:
    """Memory that this process can still take, in bytes; see available_memory."""
    return available_memory(root).n_bytes


def available_memory(root: Path = _ROOT) -> AvailableMemory:
    """The smallest of what the machine and every control group of this process leave.

    root: where /proc and /sys are found.
    """
    groups = (_group_memory(folder, version) for folder, version in _groups(root))
    machine = AvailableMemory(_machine_bytes(root), "machine")
    return min([machine, *(g for g in groups if g is not None)], key=lambda m: m.n_bytes)


def _machine_bytes(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        # Other systems than Linux: all of the memory is the best that can be said without it.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups(root: Path) -> Iterator[tuple[Path, int]]:
    """(folder, version 1 or 2) of this process's control groups for memory and their ancestors."""
    paths = _own_paths(root)
    for mount, below, version in _mounts(root):
        if version not in paths:
            continue
        try:
            inner = PurePosixPath(paths[version]).relative_to(below)
        except ValueError:
            # A container sees its own group at the mount, and the path that it has outside.
            inner = PurePosixPath()
        if ".." in inner.parts:
            inner = PurePosixPath()
        folder = root / mount.lstrip("/") / inner
        for _ in range(len(inner.parts) + 1):
            yield folder, version
            folder = folder.parent


def _own_paths(root: Path) -> dict[int, str]:
    """Version → path of this process in that hierarchy: lines such as `0::/a` and `4:memory:/a`."""
    paths: dict[int, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            paths[2] = path
        elif "memory" in controllers.split(","):
            paths[1] = path
    return paths


def _mounts(root: Path) -> Iterator[tuple[str, str, int]]:
    """(mount point, path that is mounted there, version) of the hierarchies with memory limits."""
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        mounted, point = left.split()[3:5]
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            yield point, mounted, 2
        elif kind == "cgroup" and "memory" in options.split(","):
            yield point, mounted, 1


def _group_memory(folder: Path, version: int) -> AvailableMemory | None:
    """What one control group leaves; None when it has no limit."""
    if version == 2:
        limits, used, cached = ["memory.max", "memory.high"], "memory.current", "inactive_file"
    else:
        limits, used = ["memory.limit_in_bytes"], "memory.usage_in_bytes"
        cached = "total_inactive_file"
    known = [(n, name) for name in limits if (n := _read_number(folder / name)) is not None]
    n_used = _read_number(folder / used)
    if not known or n_used is None:
        return None
    limit, name = min(known)
    if limit >= _NO_LIMIT:
        return None
    # Cached files count as used there, and give way to whoever needs the memory.
    free = limit - n_used + _stat_bytes(folder / "memory.stat", cached)
    return AvailableMemory(max(0, min(free, limit)), str(folder / name), limit)


def _stat_bytes(path: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[0] == name), 0)


def _lines(path: Path) -> list[str]:
    """The lines of a file; none without it: not every system has these."""
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []


def _read_number(path: Path) -> int | None:
    """The number in a file; None without the file, or when it says `max`."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None
