"""Weights that outlive an engine: which memory is trusted, and which is not."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from rocmforge import weights_store
from rocmforge.weights_store import (
    HEADER_BYTES,
    StoreHeader,
    create_store,
    file_identity,
    read_header,
    seal,
)

HEADER = StoreHeader(n_bytes=100, identity=bytes(range(32)), checksum=2**64 - 5)


@pytest.fixture
def fd():
    store = create_store()
    yield store
    os.close(store)


def filled(fd, header=HEADER):
    os.ftruncate(fd, HEADER_BYTES + header.n_bytes)
    seal(fd, header)


def test_what_was_sealed_is_read_and_can_never_be_changed(fd):
    filled(fd)
    assert read_header(fd) == HEADER
    for change in (
        lambda: os.pwrite(fd, b"x", HEADER_BYTES),
        lambda: os.ftruncate(fd, 10),
        lambda: os.ftruncate(fd, 10**6),
    ):
        with pytest.raises(PermissionError):
            change()


def test_what_was_not_sealed_is_not_read(fd):
    assert read_header(fd) is None
    os.ftruncate(fd, HEADER_BYTES + HEADER.n_bytes)
    os.pwrite(fd, HEADER.pack(), 0)
    assert read_header(fd) is None


def test_a_file_of_another_length_is_not_read(fd):
    os.ftruncate(fd, HEADER_BYTES + 99)
    seal(fd, HEADER)
    assert read_header(fd) is None


def test_a_plain_file_is_no_store(tmp_path):
    path = tmp_path / "store"
    path.write_bytes(HEADER.pack() + bytes(100))
    with path.open("rb") as file:
        assert read_header(file.fileno()) is None


@pytest.mark.parametrize("at", [0, 9, 20, 60, 3000, HEADER_BYTES - 1])
def test_a_flipped_bit_in_the_header_is_seen(at):
    page = bytearray(HEADER.pack())
    assert StoreHeader.unpack(bytes(page)) == HEADER
    page[at] ^= 1
    assert StoreHeader.unpack(bytes(page)) is None


def test_a_short_header_and_another_layout_are_none(monkeypatch):
    page = HEADER.pack()
    assert StoreHeader.unpack(page[:-1]) is None
    assert StoreHeader.unpack(b"") is None
    monkeypatch.setattr(weights_store, "LAYOUT_VERSION", 99)
    assert StoreHeader.unpack(page) is None


def test_a_map_that_may_write_keeps_the_seal_away(fd):
    import mmap

    os.ftruncate(fd, HEADER_BYTES + HEADER.n_bytes)
    with mmap.mmap(fd, HEADER_BYTES), pytest.raises(OSError):
        seal(fd, HEADER)
    assert read_header(fd) is None


def test_the_identity_of_files_changes_with_them(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1")
    second.write_bytes(b"1")
    identity = file_identity([first])
    assert identity == file_identity([first]) != file_identity([second])
    assert identity != file_identity([first, second])
    assert identity != file_identity([first], "packed otherwise")
    os.utime(first, (1, 1))
    assert identity != file_identity([first])
    with pytest.raises(OSError):
        file_identity([tmp_path / "c"])


def test_without_such_memory_there_is_no_store(monkeypatch):
    def refuse(*_):
        raise OSError("not here")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert create_store() is None
    monkeypatch.delattr(os, "memfd_create")
    assert create_store() is None


def test_headers_differ_where_their_fields_do():
    assert replace(HEADER, checksum=1).pack() != HEADER.pack()
