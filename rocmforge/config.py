"""Every setting, validated once; the only reader of the environment.

`EngineConfig` (with its parts) is what crosses to the engine process; `ServerConfig` and
`SupervisorConfig` stay in the server process. Unknown keys are errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rocmforge.errors import InvalidCacheConfiguration, InvalidConfiguration

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
RETRY_AFTER_SECONDS = 60
MAX_RETRY_AFTER_SECONDS = 120
KV_TYPES = ("f16", "f32")
DEVICES = ("auto", "cpu")
ISAS = ("auto", "scalar", "avx2")


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
    which native kernels, `auto` for the best that passes its self-test.
    """

    model_path: str
    device: str = "auto"
    isa: str = "auto"
    n_threads: int | None = None
    max_sequence_length: int | None = None
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)

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
    circuit_open_s have passed.
    """

    restart_delay_s: float = 0.1
    restart_backoff: float = 2.0
    restart_max_delay_s: float = 10.0
    max_restarts: int = 5
    circuit_open_s: float = 30.0
    load_timeout_s: float = 600.0
    hang_timeout_s: float = 30.0

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
    api_keys: tuple[str, ...] = ()
    served_model_name: str | None = None
    chat_template: Path | None = None
    max_body_bytes: int = 8 * 2**20
    max_live_requests: int = 1000
    retry_after_s: int = RETRY_AFTER_SECONDS
    ping_interval_s: float = 5.0
    template_timeout_s: float = 5.0
    drain_timeout_s: float = 30.0
    supervisor: SupervisorConfig = field(default_factory=SupervisorConfig)

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


def _positive(name: str, value: float) -> None:
    # Written so that NaN fails too.
    if not value > 0:
        raise InvalidConfiguration(f"{name} must be positive, got {value}")
