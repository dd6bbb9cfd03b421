"""Every setting, validated once; the only reader of the environment.

`EngineConfig` (with its parts) is what crosses to the engine process; `ServerConfig` and
`SupervisorConfig` stay in the server process. Unknown keys are errors.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from rocmforge.checks import positive as _positive
from rocmforge.errors import InvalidCacheConfiguration, InvalidConfiguration, IoError
from rocmforge.fault_config import FaultConfig
from rocmforge.retry_config import RetryConfig
from rocmforge.server_config import ConnectionConfig, OverloadConfig, SecurityConfig

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
RETRY_AFTER_SECONDS = 60
MAX_RETRY_AFTER_SECONDS = 120
ENV_PREFIX = "ROCMFORGE_"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "human", "json")
KV_TYPES = ("f16", "f32")
DEVICES = ("auto", "cpu")
ISAS = ("auto", "scalar", "avx2", "avxvnni", "avx512", "amx", "neon")


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The paged KV cache.

    block_tokens: positions per block. kv_type: how keys and values are stored. kv_bytes: memory for
    all blocks, None to fit max_batch_size sequences within a quarter of the free memory.
    prefix_cache: keep the blocks of finished requests for prompts that begin alike.
    """

    block_tokens: int = 16
    kv_type: str = "f16"
    kv_bytes: int | None = None
    prefix_cache: bool = True

    def __post_init__(self) -> None:
        if self.block_tokens not in (8, 16, 32, 64):
            raise InvalidCacheConfiguration(
                f"block_tokens must be 8, 16, 32 or 64, got {self.block_tokens}"
            )
        if self.kv_type not in KV_TYPES:
            raise InvalidCacheConfiguration(
                f"kv_type must be one of {', '.join(KV_TYPES)}, got {self.kv_type!r}"
            )
        if self.kv_bytes is not None and self.kv_bytes < 1:
            raise InvalidCacheConfiguration(f"kv_bytes must be positive, got {self.kv_bytes}")


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What goes into one step.

    max_batch_size: sequences that run at once. max_step_tokens: token budget of a step, shared by
    decode (one each) and chunked prefill. max_queue: sequences that wait. max_step_ms: chunks
    shrink so that a step stays below it.
    """

    max_batch_size: int = 32
    max_step_tokens: int = 512
    max_queue: int = 1000
    max_step_ms: float = 500.0

    def __post_init__(self) -> None:
        _positive("max_batch_size", self.max_batch_size)
        _positive("max_step_tokens", self.max_step_tokens)
        _positive("max_queue", self.max_queue)
        _positive("max_step_ms", self.max_step_ms)
        if self.max_step_tokens < self.max_batch_size:
            raise InvalidConfiguration(
                f"max_step_tokens ({self.max_step_tokens}) must be at least "
                f"max_batch_size ({self.max_batch_size}): "
                "every running sequence decodes one token a step"
            )


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """All that the engine process needs.

    n_threads: None for every core this process may use. max_sequence_length: positions per
    sequence, prompt and output together; None for the smaller of 4096 and the model's own. isa:
    which native kernels, `auto` for the best that passes its self-test. retry_config: of device
    operations. faults: to be injected into them.
    """

    model_path: str = ""
    device: str = "auto"
    isa: str = "auto"
    n_threads: int | None = None
    max_sequence_length: int | None = None
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    retry_config: RetryConfig = field(default_factory=RetryConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise InvalidConfiguration(
                f"device must be one of {', '.join(DEVICES)}, got {self.device!r}"
            )
        if self.isa not in ISAS:
            raise InvalidConfiguration(f"isa must be one of {', '.join(ISAS)}, got {self.isa!r}")
        if self.n_threads is not None:
            _positive("n_threads", self.n_threads)
        if self.max_sequence_length is not None:
            _positive("max_sequence_length", self.max_sequence_length)


@dataclass(frozen=True, kw_only=True)
class SupervisorConfig:
    """How the engine is watched and restarted. Times in seconds.

    Only restarts without progress (no token since the last one) count towards max_restarts and
    lengthen the back-off; when they are used up the circuit opens: requests get 503 until
    circuit_open_s have passed. shared_weights: keep the weights in memory while an
    engine is replaced.
    """

    restart_delay_s: float = 0.1
    restart_backoff: float = 2.0
    restart_max_delay_s: float = 10.0
    max_restarts: int = 5
    circuit_open_s: float = 30.0
    load_timeout_s: float = 600.0
    hang_timeout_s: float = 30.0
    shared_weights: bool = True

    def __post_init__(self) -> None:
        for name in ("restart_delay_s", "restart_max_delay_s", "circuit_open_s"):
            _positive(name, getattr(self, name))
        _positive("load_timeout_s", self.load_timeout_s)
        _positive("hang_timeout_s", self.hang_timeout_s)
        _positive("max_restarts", self.max_restarts)
        if self.restart_backoff < 1.0:
            raise InvalidConfiguration("restart_backoff must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The HTTP side.

    api_keys: empty for an open server. served_model_name: what /v1/models shows; None for the
    file's own name. chat_template: a file that replaces the model's own template. drain_timeout_s:
    how long a stopping server lets its streams finish.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    served_model_name: str | None = None
    chat_template: Path | None = None
    max_body_bytes: int = 8 * 2**20
    max_live_requests: int = 1000
    retry_after_s: int = RETRY_AFTER_SECONDS
    ping_interval_s: float = 5.0
    template_timeout_s: float = 5.0
    drain_timeout_s: float = 30.0
    supervisor: SupervisorConfig = field(default_factory=SupervisorConfig)
    connections: ConnectionConfig = field(default_factory=ConnectionConfig)
    overload: OverloadConfig = field(default_factory=OverloadConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InvalidConfiguration(f"port must be between 0 and 65535, got {self.port}")
        if not 1 <= self.retry_after_s <= MAX_RETRY_AFTER_SECONDS:
            raise InvalidConfiguration(
                f"retry_after_s must be between 1 and {MAX_RETRY_AFTER_SECONDS} "
                f"(official clients give up above that), got {self.retry_after_s}"
            )
        _positive("max_body_bytes", self.max_body_bytes)
        _positive("max_live_requests", self.max_live_requests)
        _positive("ping_interval_s", self.ping_interval_s)
        _positive("template_timeout_s", self.template_timeout_s)
        _positive("drain_timeout_s", self.drain_timeout_s)


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where log lines go. format `auto`: human on a terminal, JSON elsewhere."""

    level: str = "info"
    format: str = "auto"

    def __post_init__(self) -> None:
        if self.level not in LOG_LEVELS:
            raise InvalidConfiguration(
                f"log level must be one of {', '.join(LOG_LEVELS)}, got {self.level!r}"
            )
        if self.format not in LOG_FORMATS:
            raise InvalidConfiguration(
                f"log format must be one of {', '.join(LOG_FORMATS)}, got {self.format!r}"
            )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of a command's settings: what the file, the environment and the command line say
    together.

    model: a path, an alias or `hf:owner/repo[:file]`; None for the embedded model. aliases: short
    names for any of these.
    """

    model: str | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    engine: EngineConfig = field(default_factory=EngineConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    log: LogConfig = field(default_factory=LogConfig)


# Sections whose fields need no section name in an environment variable: ROCMFORGE_PORT,
# ROCMFORGE_DEVICE.
_UNNAMED_SECTIONS = frozenset({"engine", "server"})
_NO_VARIABLE = frozenset({"aliases", "engine.model_path"})


def environment_variables() -> dict[str, tuple[str, ...]]:
    """Every variable that is read → the path of its setting: {"ROCMFORGE_PORT": ("server", "port"),
    …}."""
    return {_variable_name(path): path for path in _leaf_paths(Settings)}


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge, weakest first: `defaults` (a command's own), the TOML file, the environment,
    `overrides` (the command line).

    `overrides` is a nested mapping like the file's; None values in it are skipped. The file is
    `config_file`, else ROCMFORGE_CONFIG, else none. Raises InvalidConfiguration naming an unknown
    key (with the nearest known one) or a bad value, IoError when the file cannot be read.
    """
    env = dict(os.environ if environment is None else environment)
    named = env.pop(ENV_PREFIX + "CONFIG", None)
    path = config_file or (Path(named) if named else None)
    merged: dict[str, Any] = {}
    _merge(merged, defaults or {})
    _merge(merged, _read_toml(path) if path else {})
    _merge(merged, _from_environment(env))
    _merge(merged, overrides or {})
    return _build(Settings, merged, "")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise IoError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {error}") from error


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    known = environment_variables()
    result: dict[str, Any] = {}
    for name, text in env.items():
        if not name.startswith(ENV_PREFIX):
            continue
        if name not in known:
            raise InvalidConfiguration(_unknown("environment variable", name, known))
        *sections, leaf = known[name]
        target = result
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = text.split(",") if leaf == "api_keys" else text
    return result


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        elif isinstance(value, Mapping):
            base[key] = {}
            _merge(base[key], value)
        elif value is not None:
            base[key] = value


_Config = TypeVar("_Config")


def _build(cls: type[_Config], values: Mapping[str, Any], prefix: str) -> _Config:
    hints = get_type_hints(cls)
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise InvalidConfiguration(
                _unknown("setting", prefix + key, [prefix + h for h in hints])
            )
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, Mapping):
            fields[key] = _build(hints[key], value, f"{prefix}{key}.")
        else:
            fields[key] = _convert(value, hints[key], prefix + key)
    return cls(**fields)


def _convert(value: Any, kind: Any, name: str) -> Any:
    if kind == Path | None:
        return Path(value)
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(f"{name} = {value!r}: {error}") from error


def _unknown(kind: str, name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown {kind} {name}" + (f"; did you mean {near[0]}?" if near else "")


def _leaf_paths(cls: type[Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, hint in get_type_hints(cls).items():
        here = (*path, name)
        if ".".join(here) in _NO_VARIABLE:
            continue
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _leaf_paths(hint, here)
        else:
            yield here


def _variable_name(path: tuple[str, ...]) -> str:
    return ENV_PREFIX + "_".join(p for p in path if p not in _UNNAMED_SECTIONS).upper()
