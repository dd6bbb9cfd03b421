"""The CPU backend's weights in a store: packed once, used again, and nothing else believed."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rocmforge import _native
from rocmforge.backends import shared_weights
from rocmforge.backends.cpu import CpuBackend
from rocmforge.config import EngineConfig
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.engine.start import load_runner
from rocmforge.models.loading import load_model
from rocmforge.weights_store import HEADER_BYTES, StoreHeader, create_store, read_header, seal
from tests.support.gguf_files import write_tiny_model

CONFIG = EngineConfig(model_path=str(EMBEDDED_MODEL_PATH), n_threads=2)


@pytest.fixture
def fd():
    store = create_store()
    yield store
    os.close(store)


def logits(fd, config=CONFIG):
    """(where the weights are from, the logits of some tokens)."""
    runner = load_runner(config, store_fd=fd)
    result = runner.run(runner._idle_plan(5)).copy()
    source = runner.facts(0.0).weights_source
    runner.close()
    return source, result.tobytes()


def test_the_second_engine_uses_what_the_first_packed(fd, monkeypatch):
    private = logits(None)
    assert private == logits(fd) == ("file", private[1])
    header = read_header(fd)
    assert os.fstat(fd).st_size == HEADER_BYTES + header.n_bytes
    monkeypatch.setattr(CpuBackend, "_load", lambda *_: pytest.fail("a weight was copied"))
    assert logits(fd) == ("shared", private[1])


@pytest.fixture
def reasons(monkeypatch):
    """Why stores were refused."""
    told = []

    class Log:
        def warning(self, event, *, reason):
            assert event == "shared_weights_refused"
            told.append(reason)

    monkeypatch.setattr(shared_weights, "_log", Log())
    return told


def test_damaged_content_is_not_used(fd, reasons):
    expected = logits(None)
    logits(fd)
    header = read_header(fd)
    content = bytearray(os.pread(fd, header.n_bytes, HEADER_BYTES))
    content[len(content) // 2] ^= 1
    damaged = create_store()
    os.ftruncate(damaged, HEADER_BYTES + header.n_bytes)
    os.pwrite(damaged, content, HEADER_BYTES)
    seal(damaged, header)
    assert logits(damaged) == expected
    assert "checksum" in reasons.pop()
    os.close(damaged)


def test_half_written_and_foreign_stores_are_not_used(fd, reasons, tmp_path):
    expected = logits(None)
    os.ftruncate(fd, HEADER_BYTES + 1000)
    assert logits(fd) == expected
    assert "half-written" in reasons.pop()
    other = create_store()
    tiny = write_tiny_model(tmp_path / "tiny.gguf", "llama", seed=1)
    load_model(tiny, CpuBackend(1), store_fd=other)
    assert isinstance(read_header(other), StoreHeader)
    assert logits(other) == expected
    assert "another model" in reasons.pop()
    os.close(other)


def test_a_store_that_cannot_be_sealed_serves_this_engine(fd, monkeypatch):
    def refuse(*_):
        raise OSError("busy")

    monkeypatch.setattr(shared_weights, "seal", refuse)
    assert logits(fd) == logits(None)
    assert read_header(fd) is None


def test_shared_weights_refuse_to_be_written(fd):
    os.ftruncate(fd, 8192)
    weights = _native.Weights.of_file(fd, 4096, 4096, False)

    with pytest.raises(ValueError, match="read-only"):
        weights.store(0, np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        weights.pack(_native.ThreadPool(1), 0, "F32", 4, 0, 1, np.zeros(16, np.uint8))
    with pytest.raises(ValueError, match="does not hold"):
        _native.Weights.of_file(fd, 4096, 8192, False)
