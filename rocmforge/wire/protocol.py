"""Every message between the server process (A) and the engine process (B).

Frames are length-prefixed msgpack (see channel.py); the `type` tag names the struct. A batched step
crosses once: one `StepOutput` per step, not one message per token.

    A → B   StartEngine (first, once) · Submit · Cancel · Shutdown
    B → A   LoadProgress* · EngineReady | EngineFailed · StepOutput* · Heartbeat
"""

from __future__ import annotations

import msgspec

from rocmforge.config import EngineConfig, LogConfig
from rocmforge.errors import RocmForgeError, error_from_name
from rocmforge.request import FinishReason, Request, RequestId, TokenLogprob

PROTOCOL_VERSION = 2
# Upper bounds of the histogram of retries per operation.
RETRY_BUCKETS = (1, 2, 4, 8, 16)


class WireError(msgspec.Struct, frozen=True):
    """A RocmForgeError in transit: its class and details survive, so A answers with the right
    status and body.
    """

    name: str
    message: str
    param: str | None = None
    details: dict[str, str | int] = {}

    @classmethod
    def of(cls, error: RocmForgeError) -> WireError:
        """Pack an error."""
        return cls(type(error).__name__, error.message, error.param, error.details())

    def to_error(self) -> RocmForgeError:
        """Unpack it with its original type."""
        return error_from_name(self.name, self.message, self.param, self.details)


class StartEngine(msgspec.Struct, frozen=True, tag=True):
    """The first message: which model, with which settings, and how to log (to stderr)."""

    config: EngineConfig
    log: LogConfig = LogConfig()
    protocol_version: int = PROTOCOL_VERSION
    is_replacement: bool = False
    """Another engine with these sizes was ready before; requests may wait for this one."""
    shares_weights: bool = False
    """The weights store that the engine was launched with is to be used."""


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Serve this request (or go on with it, when `request.generated` is not empty)."""

    request: Request


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Stop a request (choice None), or one of its choices (a stop string was seen). Frees its
    blocks.

    B sends nothing more for it: A has already closed it.
    """

    request_id: RequestId
    choice: int | None = None


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """Leave now; A has drained."""


class LoadProgress(msgspec.Struct, frozen=True, tag=True):
    """How far loading has come: phase `read | pack | plan | warm`, percent 0–100 over all
    phases.
    """

    phase: str
    percent: float


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What really runs: shown in the start-up log, in /props and in metric labels."""

    pid: int
    backend: str
    device: str
    isa: str
    n_threads: int
    weight_types: dict[str, int]
    """ggml type name → number of tensors kept in that type."""
    decoded_types: dict[str, int]
    """ggml type name → number of tensors that were decoded to F32 on load."""
    activation_dtype: str
    kv_type: str
    kv_bytes: int
    weight_bytes: int
    architecture: str
    n_vocab: int
    n_ctx: int
    n_ctx_train: int
    n_blocks: int
    block_tokens: int
    max_batch_size: int
    max_step_tokens: int
    deterministic: bool
    load_s: float
    weights_source: str = "file"
    """`shared` when an engine before this one had packed them, else `file`."""


class EngineReady(msgspec.Struct, frozen=True, tag=True):
    """The engine serves."""

    facts: EngineFacts


class EngineFailed(msgspec.Struct, frozen=True, tag=True):
    """The engine cannot start or go on; it exits after this message. stats: its last counters, None
    before it served.
    """

    error: WireError
    stats: EngineStats | None = None


class TokenOutput(msgspec.Struct, frozen=True, array_like=True):
    """One sampled token of one choice.

    `index` is its place in the choice's generated tokens (0 for the first): A checks that none is
    missing or repeated. `finish_reason` is set on a choice's last token. An EOS or stop token is
    reported with finish_reason `stop` and is not part of the text.
    """

    request_id: RequestId
    choice: int
    index: int
    token_id: int
    finish_reason: FinishReason | None = None
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] | None = None


class RequestStarted(msgspec.Struct, frozen=True, array_like=True):
    """A request left the queue: its first chunk is in this step."""

    request_id: RequestId
    cached_tokens: int
    queue_wait_s: float


class RequestFailed(msgspec.Struct, frozen=True):
    """A request ended with an error; nothing more comes for it."""

    request_id: RequestId
    error: WireError


class RetryCount(msgspec.Struct, frozen=True, array_like=True):
    """What became of the retries of one device operation, counted from the engine's start.

    attempts: retries made. successes, failures: operations that succeeded after at least one, and
    that were given up. buckets: how many of both took at most RETRY_BUCKETS[i] retries. n_retries:
    the retries of both together.
    """

    operation: str
    attempts: int
    successes: int
    failures: int
    buckets: tuple[int, ...]
    n_retries: int

    def __post_init__(self) -> None:
        if len(self.buckets) != len(RETRY_BUCKETS):
            raise ValueError(f"retries are counted in {len(RETRY_BUCKETS)} buckets")


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's gauges and counters after a step; counters count from the engine's start."""

    n_running: int = 0
    n_waiting: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    blocks_total: int = 0
    prompt_tokens_total: int = 0
    generated_tokens_total: int = 0
    prefix_queries_total: int = 0
    prefix_hits_total: int = 0
    prefix_hit_tokens_total: int = 0
    preemptions_total: int = 0
    steps_total: int = 0
    last_step_ms: float = 0.0
    last_step_tokens: int = 0
    prefill_s_total: float = 0.0
    decode_s_total: float = 0.0
    device_calls_total: int = 0
    faults_injected_total: int = 0
    memory_recoveries_total: int = 0
    retries: tuple[RetryCount, ...] = ()


class StepOutput(msgspec.Struct, frozen=True, tag=True):
    """All that one step produced."""

    tokens: tuple[TokenOutput, ...] = ()
    started: tuple[RequestStarted, ...] = ()
    failed: tuple[RequestFailed, ...] = ()
    stats: EngineStats = EngineStats()


class Heartbeat(msgspec.Struct, frozen=True, tag=True):
    """The loop is idle and alive."""

    stats: EngineStats


ToEngine = StartEngine | Submit | Cancel | Shutdown
FromEngine = LoadProgress | EngineReady | EngineFailed | StepOutput | Heartbeat
