"""Models of this process, and logging as it was."""

from __future__ import annotations

import logging

import pytest
import structlog

import rocmforge
from tests.support.gguf_files import write_tiny_model


@pytest.fixture(autouse=True)
def restore_logging():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    assert (root.handlers, root.level) == before, "a library leaves the host's logging alone"


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """A random model with tokenizer and chat template."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", n_ctx=384)


@pytest.fixture(scope="module")
def tiny(tiny_path):
    with rocmforge.load(tiny_path, threads=2) as model:
        yield model


@pytest.fixture(scope="session")
def bare_path(tmp_path_factory):
    """A random model without tokenizer."""
    path = tmp_path_factory.mktemp("model") / "bare.gguf"
    return write_tiny_model(path, with_tokenizer=False, n_ctx=128)


@pytest.fixture(scope="module")
def bare(bare_path):
    with rocmforge.load(bare_path, threads=1) as model:
        yield model
