"""What a result has to say about where it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from turns import cpu_name

# Instruction sets that matter here; the whole list is a page.
_FLAGS = frozenset(
    {"avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"}
    | {"avx512_vbmi", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"}
    | {"asimddp", "i8mm", "bf16", "sve", "sve2"}
)


def machine_facts() -> dict[str, Any]:
    """Processor, memory, system, versions and the commit of the sources."""
    return {
        "cpu": cpu_name(),
        "cpu_flags": cpu_flags(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "machine": platform.platform(),
        "commit": commit(),
        "versions": {
            "python": sys.version.split()[0],
            "numpy": version("numpy"),
            "rocmforge": version("rocmforge"),
        },
    }


def cpu_flags() -> list[str]:
    """The instruction sets among those that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return []
    words = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return sorted(_FLAGS & set(words))


def commit() -> str:
    """The commit of the working tree, with + when something tracked differs; empty without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        done = [
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done[0].strip() + ("+" if done[1].strip() else "")
