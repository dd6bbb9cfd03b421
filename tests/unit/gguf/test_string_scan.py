"""Strings found in bulk are those that reading one by one finds, whatever the bytes are."""

from __future__ import annotations

import random
import struct

import pytest

from rocmforge.gguf import string_scan
from rocmforge.gguf.string_scan import scan_strings


def packed(strings: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(s)) + s for s in strings)


def made_up(kind: str, n: int = 3000) -> list[bytes]:
    rng = random.Random(kind)
    lengths = {
        "words": lambda: rng.randint(1, 20),
        "with empty ones": lambda: rng.choice([0, 3, 9]),
        "with long ones": lambda: rng.choice([5, 255, 256, 300]) if rng.random() < 0.02 else 7,
        "all empty": lambda: 0,
        "zeros inside": lambda: rng.randint(1, 30),
    }[kind]
    letters = b"\0\0\0ab" if kind == "zeros inside" else b"abc\x01\xff"
    return [bytes(rng.choices(letters, k=lengths())) for _ in range(n)]


KINDS = ("words", "with empty ones", "with long ones", "all empty", "zeros inside")


@pytest.mark.parametrize("window", [64, 1 << 16])
@pytest.mark.parametrize("kind", KINDS)
def test_every_length_is_found(monkeypatch, kind, window):
    monkeypatch.setattr(string_scan, "_WINDOW_BYTES", window)
    strings = made_up(kind)
    head, tail = b"some bytes", b"\x05\0\0\0\0\0\0\0after"
    data = head + packed(strings) + tail
    lengths, end = scan_strings(data, len(head), len(strings), len(data))
    assert lengths.tolist() == [len(s) for s in strings]
    assert end == len(data) - len(tail)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_in_memory_yet_is_left(kind):
    strings = made_up(kind, 300)
    data = packed(strings)
    for cut in range(0, len(data), 97):
        lengths, end = scan_strings(data[:cut], 0, len(strings), len(data))
        assert lengths.tolist() == [len(s) for s in strings][: len(lengths)]
        assert end == sum(8 + len(s) for s in strings[: len(lengths)])
        assert end + 8 > cut


@pytest.mark.parametrize("length", [3, 200, 2**63])
def test_a_string_that_ends_behind_the_file_is_not_counted(length):
    data = packed([b"ab", b"cd"]) + struct.pack("<Q", length) + b"ef"
    lengths, end = scan_strings(data, 0, 3, len(data))
    assert lengths.tolist() == [2, 2]
    assert end == 20


def test_no_more_than_asked_for():
    data = packed([b"ab"] * 10)
    assert scan_strings(data, 0, 4, len(data))[0].tolist() == [2] * 4
    assert scan_strings(data, 0, 0, len(data))[0].tolist() == []
