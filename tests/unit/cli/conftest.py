"""Commands in this process and in one of their own; settings and logging as they were."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import structlog
from typer.testing import CliRunner

from tests.support.gguf_files import write_tiny_model


@pytest.fixture(autouse=True)
def restore_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in [name for name in os.environ if name.startswith("ROCMFORGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """A random model with tokenizer and chat template."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", n_ctx=384)


@pytest.fixture(scope="session")
def plain_path(tmp_path_factory):
    """A random model without chat template."""
    path = tmp_path_factory.mktemp("model") / "plain.gguf"
    return write_tiny_model(path, n_ctx=128, metadata={"tokenizer.chat_template": None})


@pytest.fixture
def invoke():
    """Run a command here; its result, with errors raised as they are."""
    from rocmforge.cli.main import command_line

    def run(*args, text=None):
        result = CliRunner().invoke(command_line(), [str(a) for a in args], input=text)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def rocmforge(tmp_path):
    """Run a command as a process; `env` adds variables."""

    def run(*args, text="", env=None):
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "rocmforge.cli.main", *map(str, args)],
            input=text,
            capture_output=True,
            text=True,
            timeout=100,
            env=os.environ | {"HF_HOME": str(tmp_path)} | (env or {}),
        )

    return run
