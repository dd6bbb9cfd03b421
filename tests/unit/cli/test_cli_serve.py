"""`rocmforge serve`: every option arrives where it belongs, over the environment and the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import rocmforge.server.run
from rocmforge.config import EngineConfig, LogConfig, ServerConfig
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.errors import InvalidCacheConfiguration, InvalidConfiguration, ModelLoadFailed


@pytest.fixture
def served(invoke, monkeypatch):
    """(engine, server, log) settings with which a command line would serve."""
    calls = []

    def serve(*configs, launched):
        assert launched is None
        calls.append(configs)
        return 0

    monkeypatch.setattr(rocmforge.server.run, "serve", serve)

    def run(*args):
        assert invoke("serve", *args).exit_code == 0
        return calls.pop()

    return run


def test_nothing_said_is_every_default_and_the_embedded_model(served):
    engine, server, log = served()
    assert engine == EngineConfig(model_path=str(EMBEDDED_MODEL_PATH))
    assert server == ServerConfig()
    assert log == LogConfig()


def test_every_option_arrives(served, tiny_path, tmp_path):
    template = tmp_path / "chat.jinja"
    engine, server, log = served(
        *(tiny_path, "--host", "0.0.0.0", "-p", "9001", "--device", "cpu", "--isa", "scalar"),
        *("-t", "3", "-c", "77", "--kv-type", "f32", "--kv-bytes", "1000000"),
        *("--max-batch-size", "5", "--api-key", "a", "--api-key", "b"),
        *("--served-model-name", "me", "--chat-template", template),
        *("--log-level", "error", "--log-format", "json"),
    )
    default = EngineConfig()
    assert engine == replace(
        default,
        model_path=str(tiny_path),
        device="cpu",
        isa="scalar",
        n_threads=3,
        max_sequence_length=77,
        cache=replace(default.cache, kv_type="f32", kv_bytes=1_000_000),
        scheduler=replace(default.scheduler, max_batch_size=5),
    )
    assert server == ServerConfig(
        host="0.0.0.0",
        port=9001,
        api_keys=("a", "b"),
        served_model_name="me",
        chat_template=Path(template),
    )
    assert log == LogConfig(level="error", format="json")


def test_command_line_over_environment_over_file(served, tiny_path, tmp_path, monkeypatch):
    config = tmp_path / "rocmforge.toml"
    config.write_text(
        f'model = "mine"\n[aliases]\nmine = "{tiny_path}"\n'
        '[server]\nport = 1\nhost = "file"\nserved_model_name = "file"\n'
        "[engine]\nn_threads = 1\n[log]\nlevel = 'error'\n"
    )
    monkeypatch.setenv("ROCMFORGE_HOST", "environment")
    monkeypatch.setenv("ROCMFORGE_PORT", "2")
    engine, server, log = served("--config", config, "--port", "3")
    assert (server.served_model_name, server.host, server.port) == ("file", "environment", 3)
    assert (engine.model_path, engine.n_threads) == (str(tiny_path), 1)
    assert log.level == "error"
    monkeypatch.setenv("ROCMFORGE_MODEL", "embedded")
    assert served("--config", config)[0].model_path == str(EMBEDDED_MODEL_PATH)
    assert served("mine", "--config", config)[0].model_path == str(tiny_path)


def test_what_serve_returns_is_the_exit_status(invoke, monkeypatch):
    monkeypatch.setattr(rocmforge.server.run, "serve", lambda *_, launched: 1)
    assert invoke("serve").exit_code == 1


def test_bad_options_are_refused(invoke):
    for args, error in (
        (("--port", "70000"), InvalidConfiguration),
        (("--kv-type", "q3"), InvalidCacheConfiguration),
        (("--kv-bytes", "0"), InvalidCacheConfiguration),
        (("--log-level", "loud"), InvalidConfiguration),
        (("--isa", "mmx"), InvalidConfiguration),
        (("nowhere.gguf",), ModelLoadFailed),
    ):
        with pytest.raises(error):
            invoke("serve", *args)
    assert invoke("serve", "--port", "many").exit_code == 2
