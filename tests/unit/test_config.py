"""Settings: precedence, unknown keys, bad values, and documents that name every variable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rocmforge.config import (
    CacheConfig,
    EngineConfig,
    SchedulerConfig,
    ServerConfig,
    Settings,
    SupervisorConfig,
    environment_variables,
    load_settings,
)
from rocmforge.errors import InvalidCacheConfiguration, InvalidConfiguration, IoError

ROOT = Path(__file__).parents[2]


def test_contract_defaults():
    settings = load_settings(environment={})
    assert settings == Settings()
    assert settings.engine.scheduler.max_batch_size == 32
    assert settings.engine.scheduler.max_queue == 1000
    assert settings.engine.scheduler.max_step_tokens == 512
    assert settings.engine.cache.block_tokens == 16
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.server.retry_after_s == 60


def test_precedence(tmp_path):
    file = tmp_path / "rocmforge.toml"
    file.write_text(
        'model = "x"\n[aliases]\nx = "/m.gguf"\n[server]\nport = 1\nhost = "h"\n'
        "[engine]\nn_threads = 1\n[engine.cache]\nkv_type = 'f32'\n"
    )
    env = {"ROCMFORGE_PORT": "2", "ROCMFORGE_N_THREADS": "2", "OTHER": "x"}
    settings = load_settings(
        {"engine": {"n_threads": 3, "isa": None}}, config_file=file, environment=env
    )
    assert settings.aliases == {"x": "/m.gguf"}
    assert (settings.server.host, settings.server.port) == ("h", 2)
    assert settings.engine == EngineConfig(n_threads=3, cache=CacheConfig(kv_type="f32"))
    assert load_settings(environment=env | {"ROCMFORGE_CONFIG": str(file)}).model == "x"


def test_values_from_the_environment_are_parsed():
    settings = load_settings(
        environment={
            "ROCMFORGE_API_KEYS": "a,b",
            "ROCMFORGE_CACHE_PREFIX_CACHE": "false",
            "ROCMFORGE_SUPERVISOR_HANG_TIMEOUT_S": "2.5",
            "ROCMFORGE_CHAT_TEMPLATE": "t.jinja",
        }
    )
    assert settings.server.api_keys == ("a", "b")
    assert settings.engine.cache.prefix_cache is False
    assert settings.server.supervisor.hang_timeout_s == 2.5
    assert settings.server.chat_template == Path("t.jinja")


@pytest.mark.parametrize(
    ("overrides", "environment", "message"),
    [
        ({"serwer": {}}, {}, "unknown setting serwer; did you mean server?"),
        ({"server": {"prot": 1}}, {}, "unknown setting server.prot; did you mean server.port?"),
        ({}, {"ROCMFORGE_PROT": "1"}, "ROCMFORGE_PROT; did you mean ROCMFORGE_PORT?"),
        ({}, {"ROCMFORGE_PORT": "x"}, "server.port = 'x'"),
        ({"server": {"port": 70000}}, {}, "port must be between 0 and 65535"),
        ({"log": {"level": "loud"}}, {}, "log level must be one of"),
    ],
)
def test_bad_settings_are_named(overrides, environment, message):
    with pytest.raises(InvalidConfiguration, match=re.escape(message)):
        load_settings(overrides, environment=environment)


def test_bad_files(tmp_path):
    with pytest.raises(IoError, match="cannot read"):
        load_settings(config_file=tmp_path / "none.toml", environment={})
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(InvalidConfiguration, match="not valid TOML"):
        load_settings(config_file=tmp_path / "bad.toml", environment={})


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: CacheConfig(block_tokens=7), InvalidCacheConfiguration),
        (lambda: CacheConfig(kv_type="q3"), InvalidCacheConfiguration),
        (lambda: CacheConfig(kv_bytes=0), InvalidCacheConfiguration),
        (lambda: SchedulerConfig(max_step_tokens=8), InvalidConfiguration),
        (lambda: SchedulerConfig(max_step_ms=float("nan")), InvalidConfiguration),
        (lambda: EngineConfig(device="tpu"), InvalidConfiguration),
        (lambda: EngineConfig(n_threads=0), InvalidConfiguration),
        (lambda: ServerConfig(retry_after_s=121), InvalidConfiguration),
        (lambda: SupervisorConfig(restart_backoff=0.5), InvalidConfiguration),
    ],
)
def test_impossible_values(make, error):
    with pytest.raises(error):
        make()


def test_documents_name_every_variable():
    variables = {"ROCMFORGE_CONFIG", *environment_variables()}
    for document in (".env.example", "docs/configuration.md"):
        text = (ROOT / document).read_text()
        assert set(re.findall(r"ROCMFORGE_[A-Z0-9_]+", text)) == variables, document


def test_documented_file_is_valid(tmp_path):
    text = (ROOT / "docs" / "configuration.md").read_text()
    file = tmp_path / "example.toml"
    file.write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    assert load_settings(config_file=file, environment={}).engine.n_threads == 8


def test_a_command_s_own_defaults_are_weaker_than_file_and_environment(tmp_path):
    file = tmp_path / "rocmforge.toml"
    file.write_text("[engine]\nn_threads = 2\n")
    own = {"engine": {"n_threads": 9, "isa": "scalar", "device": "cpu"}, "log": {"level": "error"}}
    settings = load_settings(config_file=file, environment={"ROCMFORGE_ISA": "avx2"}, defaults=own)
    assert (settings.engine.n_threads, settings.engine.isa) == (2, "avx2")
    assert (settings.engine.device, settings.log.level) == ("cpu", "error")
    assert load_settings(environment={}, defaults={"engine": {"isa": None}}) == Settings()
