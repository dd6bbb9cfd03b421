"""What `rocmforge serve` does before anything else, and what it leaves when it is not to be."""

from __future__ import annotations

import gc
import sys

import pytest

from rocmforge.cli import main as program
from rocmforge.supervisor import launch as launch_module


@pytest.fixture
def launched(monkeypatch):
    """Engines that a command line launches: processes that only wait."""
    engines = []
    real = launch_module.launch

    def launch(**_):
        engines.append(real((sys.executable, "-c", "import time; time.sleep(100)")))
        return engines[-1]

    monkeypatch.setattr(launch_module, "launch", launch)
    yield engines
    gc.enable()
    for engine in engines:
        if engine.popen.poll() is None:
            engine.discard()


def run(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rocmforge", *words])
    with pytest.raises(SystemExit) as ended:
        program.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("words", "code"),
    [(("--port", "many"), 2), (("nowhere.gguf",), 2), (("--isa", "mmx"), 2), (("--no-such",), 2)],
)
def test_an_engine_that_nobody_needs_is_discarded(monkeypatch, launched, words, code):
    assert run(monkeypatch, "serve", *words) == code
    (engine,) = launched
    assert engine.popen.returncode == -9


def test_an_address_in_use_discards_it_too(monkeypatch, launched):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(monkeypatch, "serve", "--port", str(port)) == 2
    assert launched[0].popen.returncode == -9
    assert launched[0].is_told


@pytest.mark.parametrize("words", [("serve", "--help"), ("serve", "-h"), ("models",), ("--help",)])
def test_no_engine_is_launched_where_none_is_needed(monkeypatch, launched, words):
    assert run(monkeypatch, *words) == 0
    assert launched == []


def test_a_server_that_cannot_launch_one_starts_all_the_same(monkeypatch):
    def fails(**_):
        raise OSError("no more processes")

    import rocmforge.server.run

    given = []

    def serve(*_, launched):
        given.append(launched)
        return 0

    monkeypatch.setattr(launch_module, "launch", fails)
    monkeypatch.setattr(rocmforge.server.run, "serve", serve)
    assert run(monkeypatch, "serve") == 0
    gc.enable()
    assert given == [None]
