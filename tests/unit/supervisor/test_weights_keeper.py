"""Which weights store the next engine gets."""

from __future__ import annotations

import os

import pytest

from rocmforge.supervisor import weights_keeper
from rocmforge.supervisor.weights_keeper import WeightsKeeper
from rocmforge.weights_store import HEADER_BYTES, StoreHeader, create_store, seal


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"1")
    return path


@pytest.fixture
def keeper(model):
    keeper = WeightsKeeper(str(model))
    yield keeper
    keeper.close()


def fill(fd):
    os.ftruncate(fd, HEADER_BYTES + 8)
    seal(fd, StoreHeader(8, bytes(32), 0))


def inode(fd):
    return os.fstat(fd).st_ino


def test_a_whole_store_is_kept(keeper):
    fd = keeper.fd_for_next_life()
    fill(fd)
    assert keeper.fd_for_next_life() == fd
    keeper.engine_ready("shared")
    assert keeper.fd_for_next_life() == fd


def test_an_empty_store_is_kept_and_a_half_written_one_replaced(keeper):
    before = inode(keeper.fd_for_next_life())
    fd = keeper.fd_for_next_life()
    assert inode(fd) == before
    keeper.engine_ready("file")
    assert inode(fd) == before
    os.ftruncate(fd, HEADER_BYTES + 8)
    again = keeper.fd_for_next_life()
    assert inode(again) != before
    assert os.fstat(again).st_size == 0


def test_a_store_that_an_engine_refused_is_replaced(keeper):
    fd = keeper.fd_for_next_life()
    fill(fd)
    before = inode(keeper.fd_for_next_life())
    keeper.engine_ready("file")
    assert inode(keeper.fd_for_next_life()) != before


def test_another_model_file_gets_another_store(keeper, model):
    fd = keeper.fd_for_next_life()
    fill(fd)
    before = inode(fd)
    model.write_bytes(b"22")
    assert inode(keeper.fd_for_next_life()) != before


def test_the_store_of_the_first_engine_is_taken_over(model):
    fd = create_store()
    keeper = WeightsKeeper(str(model), fd)
    fill(fd)
    assert keeper.fd_for_next_life() == fd
    keeper.close()
    with pytest.raises(OSError):
        os.fstat(fd)
    keeper.close()


def test_a_missing_model_and_a_missing_store_are_no_end(monkeypatch):
    monkeypatch.setattr(weights_keeper, "create_store", lambda: None)
    keeper = WeightsKeeper("/nonexistent/model")
    assert keeper.fd_for_next_life() is None
    keeper.engine_ready("file")
