"""Thousands of damaged files: each is read, or refused with an error of ours; quickly, and in
little memory.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import tracemalloc

import pytest

from rocmforge.errors import InvalidModelFile, UnsupportedModelFormat
from rocmforge.gguf.header import MAX_STRINGS_PER_ARRAY
from rocmforge.gguf.metadata import ValueKind
from rocmforge.gguf.reader import GGUFFile
from tests.support import raw_gguf as raw
from tests.support.gguf_mutations import MUTATIONS, fields, mutants, seed_files, touch

SHAPES = ("llama", "qwen3", "kinds", "nested", "tensors", "strings", "empty")
N_MUTANTS = 120  # of each shape by each mutation: 5040 files
# The bytes of the file are held up to three times while they are read and cut. Per entry Python
# needs, at most: a key of 13 bytes 300 (name, dict slot, value), an array in an array of 12 bytes
# 200, a string of 8 bytes 60 (list of lengths, two arrays, a temporary), a tensor of 32 bytes 800.
BYTES_PER_BYTE = 3 + 300 / 13
FIXED_BYTES = 1 << 20
# A healthy file takes a millisecond; a loop over a hostile count would take minutes.
SLOWEST_S = 5.0


def memory_bound(n_bytes):
    return BYTES_PER_BYTE * n_bytes + FIXED_BYTES


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return seed_files(tmp_path_factory.mktemp("seeds"))


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_the_seeds_are_sound(tmp_path, seeds):
    assert tuple(seeds) == SHAPES
    path = tmp_path / "x.gguf"
    for data in seeds.values():
        path.write_bytes(data)
        with GGUFFile.open(path) as file:
            touch(file)


def try_file(path, data):
    """Whether it was read; any error but a refusal escapes."""
    path.write_bytes(data)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    started = time.monotonic()
    try:
        with GGUFFile.open(path) as file:
            # Measured before the contents are decoded: that is the caller's memory.
            peak = tracemalloc.get_traced_memory()[1] - before
            touch(file)
        message = None
    except (InvalidModelFile, UnsupportedModelFormat) as error:
        peak = tracemalloc.get_traced_memory()[1] - before
        message = error.message
    assert message is None or (len(message) < 1000 and ("x.gguf" in message or "split" in message))
    assert peak <= memory_bound(len(data))
    assert time.monotonic() - started < SLOWEST_S
    return message is None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_damaged_files(tmp_path, seeds, traced, shape, mutation):
    path = tmp_path / "x.gguf"
    n_accepted = 0
    for index, data in enumerate(mutants(seeds[shape], mutation, N_MUTANTS, shape)):
        try:
            n_accepted += try_file(path, data)
        except BaseException as error:
            error.add_note(f"mutant {index} of {shape} by {mutation.__name__}: {data[:80]!r}…")
            raise
    # If nearly all were read or all refused at the first byte, the test would test nothing.
    assert n_accepted < N_MUTANTS


def test_every_field_with_every_hostile_value(tmp_path, seeds, traced):
    path = tmp_path / "x.gguf"
    data = seeds["nested"]
    for offset, size in fields(data):
        for value in (0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1):
            changed = bytearray(data)
            changed[offset : offset + size] = (value % 256**size).to_bytes(size, "little")
            try_file(path, bytes(changed))


HUGE_FILE = 1 << 36


def sparse(path, head):
    """A file of 64 GiB that takes no room: now every count up to 2^36 fits into it."""
    path.write_bytes(head)
    os.truncate(path, HUGE_FILE)
    return path


HUGE_VALUES = {
    "a string": raw.entry("k", ValueKind.STRING, struct.pack("<Q", 1 << 35)),
    "bytes": raw.entry("k", ValueKind.ARRAY, raw.array(ValueKind.UINT8, 1 << 35)),
    "numbers": raw.entry("k", ValueKind.ARRAY, raw.array(ValueKind.FLOAT64, 1 << 32)),
    "strings": raw.entry("k", ValueKind.ARRAY, raw.array(ValueKind.STRING, 1 << 32)),
    "arrays": raw.entry("k", ValueKind.ARRAY, raw.array(ValueKind.ARRAY, 1 << 32)),
    "a string in an array": raw.entry(
        "k", ValueKind.ARRAY, raw.array(ValueKind.STRING, 2, struct.pack("<Q", 1 << 35))
    ),
}


@pytest.mark.parametrize("what", HUGE_VALUES)
def test_counts_that_fit_into_a_huge_file(tmp_path, traced, what):
    path = sparse(tmp_path / "x.gguf", raw.gguf([HUGE_VALUES[what]]))
    with pytest.raises(InvalidModelFile, match=r"'k'.*limit"):
        GGUFFile.open(path)
    # Nothing but the first piece of the file, twice while it grows.
    assert tracemalloc.get_traced_memory()[1] < 4 << 20


@pytest.mark.parametrize(("n_tensors", "n_keys"), [(1 << 30, 0), (0, 1 << 30)])
def test_counts_of_entries_that_fit_into_a_huge_file(tmp_path, traced, n_tensors, n_keys):
    path = sparse(tmp_path / "x.gguf", raw.gguf(n_tensors=n_tensors, n_keys=n_keys))
    with pytest.raises(InvalidModelFile, match="count 1073741824 is above the limit"):
        GGUFFile.open(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20


READ = """
import resource, sys
from rocmforge.errors import InvalidModelFile
from rocmforge.gguf.reader import GGUFFile
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[2]),) * 2)
try:
    GGUFFile.open(sys.argv[1], map_tensors=False)
except InvalidModelFile as error:
    print("refused", error)
else:
    print("read")
"""


def test_the_largest_header_stays_within_its_bound(tmp_path):
    """Three arrays of as many strings as are allowed, 96 MiB of header, are read within 10 times
    that: a string takes 8 bytes of the file and 24 to keep; while it is scanned 44 more for its
    length, and the file's bytes are there three times.
    """
    count = MAX_STRINGS_PER_ARRAY
    path = tmp_path / "x.gguf"
    with path.open("wb") as out:
        out.write(raw.gguf(n_keys=3)[:24])
        for key in ("a", "b", "c"):
            out.write(raw.entry(key, ValueKind.ARRAY, raw.array(ValueKind.STRING, count)))
            out.seek(8 * count, os.SEEK_CUR)
        out.truncate(out.tell() + 64)
    result = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(10 * path.stat().st_size)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == "read\n", result.stdout + result.stderr
