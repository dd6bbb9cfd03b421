"""The error taxonomy: everything a user sees is a `RocmForgeError`.

    RocmForgeError
    ├── BackendError            category Backend
    │   ├── HipError (with HipErrorKind: some kinds recoverable, some sticky)
    │   ├── GpuMemoryAllocationFailed · GpuDeviceNotFound · GpuKernelLaunchFailed
    │   └── BackendInitializationFailed
    ├── ModelError              category Model
    │   ├── ModelLoadFailed · InvalidModelFile · TensorNotFound
    │   └── MmapError · IoError
    ├── CacheError              CacheError.InvalidEntry is Internal
    │   ├── CacheCapacityExceeded (Recoverable)
    │   └── InvalidSequenceId · InvalidCacheConfiguration (User)
    ├── SchedulerError
    │   ├── QueueCapacityExceeded · BatchSizeExceeded · RateLimitExceeded · DeadlineExceeded
    │   │   (Recoverable)
    │   └── RequestNotFound · InvalidStateTransition (Internal)
    ├── SamplerError
    │   ├── InvalidTemperature · InvalidTopK · InvalidTopP (User)
    │   └── EmptyLogits · ZeroProbabilities (Internal)
    ├── InvalidRequest (User)   and UnsupportedParameter, ContextLengthExceeded, ModelNotFound …
    ├── InvalidConfiguration · InvalidTensorShape · UnsupportedModelFormat (User)
    ├── EngineNotInitialized (Recoverable)   and ModelLoading, EngineRecovering
    ├── GenerationFailed, PoisonRequest · InferenceFailed · InternalError · LockPoisoned (Internal)

The category decides the HTTP status and Retry-After (rocmforge/server/responses.py); a class with a
more precise HTTP status names it in `http_status`. `code` is the machine-readable string of the
OpenAI error body. Every class can be rebuilt from its name, message and details, so that types
survive the process boundary.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from rocmforge.error_base import ErrorCategory as ErrorCategory
from rocmforge.error_base import RocmForgeError as RocmForgeError
from rocmforge.error_base import error_from_name as error_from_name


class BackendError(RocmForgeError):
    """A device failed."""

    _category = ErrorCategory.Backend
    code = "backend_error"


class HipErrorKind(StrEnum):
    """What a call of the GPU library failed at. A launch that was refused (too many resources
    asked for) leaves the process sound; one that failed has poisoned it.
    """

    OutOfMemory = "out_of_memory"
    CopyFailed = "copy_failed"
    LaunchFailed = "launch_failed"
    LaunchRefused = "launch_refused"
    QueryFailed = "query_failed"
    DeviceError = "device_error"
    IllegalAccess = "illegal_access"
    DeviceLost = "device_lost"
    InitializationFailed = "initialization_failed"
    DeviceNotFound = "device_not_found"
    KernelLoadFailed = "kernel_load_failed"


_PERMANENT_KINDS = frozenset(
    {
        HipErrorKind.InitializationFailed,
        HipErrorKind.DeviceNotFound,
        HipErrorKind.KernelLoadFailed,
    }
)
_STICKY_KINDS = frozenset(
    {HipErrorKind.LaunchFailed, HipErrorKind.IllegalAccess, HipErrorKind.DeviceLost}
)


class HipError(BackendError):
    """A call of the GPU library failed; `kind` decides whether a retry or a restart can help."""

    code = "hip_error"

    def __init__(
        self,
        message: str,
        *,
        kind: HipErrorKind = HipErrorKind.DeviceError,
        param: str | None = None,
    ) -> None:
        super().__init__(message, param=param)
        self.kind = kind

    def details(self) -> dict[str, str | int]:
        """See RocmForgeError."""
        return {"kind": str(self.kind)}

    @classmethod
    def _keywords(cls, details: Mapping[str, str | int]) -> dict[str, Any]:
        kind = details.get("kind")
        return {"kind": HipErrorKind(kind)} if kind in list(HipErrorKind) else {}

    def is_recoverable(self) -> bool:
        """True when the operation may succeed later (after a retry or an engine restart)."""
        return self.kind not in _PERMANENT_KINDS

    def is_sticky(self) -> bool:
        """True when the error poisons the process: only an engine restart helps, a retry never."""
        return self.kind in _STICKY_KINDS


class GpuMemoryAllocationFailed(BackendError):
    """The device has no memory left for a buffer."""

    code = "gpu_memory_allocation_failed"


class GpuDeviceNotFound(BackendError):
    """The requested device does not exist."""

    code = "gpu_device_not_found"


class GpuKernelLaunchFailed(BackendError):
    """A kernel could not be launched."""

    code = "gpu_kernel_launch_failed"


class BackendInitializationFailed(BackendError):
    """A backend could not start."""

    code = "backend_initialization_failed"


class ModelError(RocmForgeError):
    """The model file, not the request, is at fault."""

    _category = ErrorCategory.Model
    code = "model_error"


class ModelLoadFailed(ModelError):
    """A model could not be loaded."""

    code = "model_load_failed"


class InvalidModelFile(ModelError):
    """A model file is damaged or hostile; the message names the field."""

    code = "invalid_model_file"


class TensorNotFound(ModelError):
    """Tensors that the architecture needs are not in the file."""

    code = "tensor_not_found"


class IoError(ModelError):
    """A file could not be read or written."""

    code = "io_error"


class MmapError(ModelError):
    """A file could not be mapped into memory."""

    code = "mmap_error"


class UnsupportedModelFormat(RocmForgeError):
    """The file is sound but of a kind that is not supported."""

    _category = ErrorCategory.User
    code = "unsupported_model_format"


class InvalidTensorShape(RocmForgeError):
    """Tensors have shapes that do not fit the architecture."""

    _category = ErrorCategory.User
    code = "invalid_tensor_shape"


class CacheError(RocmForgeError):
    """Something about the KV or prefix cache."""

    code = "cache_error"

    InvalidEntry: ClassVar[type[CacheError]]


class _InvalidEntry(CacheError):
    """An entry could not be inserted into the prefix cache."""

    code = "invalid_cache_entry"


CacheError.InvalidEntry = _InvalidEntry


class CacheCapacityExceeded(CacheError):
    """The KV cache has no free block."""

    _category = ErrorCategory.Recoverable
    code = "cache_capacity_exceeded"


class InvalidSequenceId(CacheError):
    """A sequence is not known to the cache."""

    code = "invalid_sequence_id"


class InvalidCacheConfiguration(CacheError):
    """A cache setting is impossible."""

    _category = ErrorCategory.User
    code = "invalid_cache_configuration"


class SchedulerError(RocmForgeError):
    """Something about queueing and batching."""

    code = "scheduler_error"


class RequestNotFound(SchedulerError):
    """No request has this id."""

    code = "request_not_found"
    http_status = 404


class BatchSizeExceeded(SchedulerError):
    """More sequences were asked for than a batch holds."""

    _category = ErrorCategory.Recoverable
    code = "batch_size_exceeded"


class QueueCapacityExceeded(SchedulerError):
    """The waiting queue is full."""

    _category = ErrorCategory.Recoverable
    code = "server_overloaded"


class RateLimitExceeded(SchedulerError):
    """An API key has used up what it may use; others are served."""

    _category = ErrorCategory.Recoverable
    code = "rate_limit_exceeded"
    http_status = 429


class DeadlineExceeded(SchedulerError):
    """A request was not done by its deadline."""

    _category = ErrorCategory.Recoverable
    code = "deadline_exceeded"


class InvalidStateTransition(SchedulerError):
    """A request was moved between states in an impossible way."""

    code = "invalid_state_transition"


class SamplerError(RocmForgeError):
    """Something about choosing the next token."""

    code = "sampler_error"


class EmptyLogits(SamplerError):
    """No logits were given to the sampler."""

    code = "empty_logits"


class InvalidTemperature(SamplerError):
    """The temperature is negative or not finite."""

    _category = ErrorCategory.User
    code = "invalid_temperature"


class InvalidTopK(SamplerError):
    """top_k is negative."""

    _category = ErrorCategory.User
    code = "invalid_top_k"


class InvalidTopP(SamplerError):
    """top_p is outside (0, 1]."""

    _category = ErrorCategory.User
    code = "invalid_top_p"


class ZeroProbabilities(SamplerError):
    """Every token has probability zero."""

    code = "zero_probabilities"


class InvalidRequest(RocmForgeError):
    """The request cannot be served as it is."""

    _category = ErrorCategory.User
    code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    """A known field asks for something that this server does not offer."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt does not fit; the message holds `context_length_exceeded` and both lengths."""

    code = "context_length_exceeded"

    def __init__(
        self,
        message: str,
        *,
        n_prompt_tokens: int = 0,
        n_ctx: int = 0,
        param: str | None = None,
    ) -> None:
        super().__init__(message, param=param)
        self.n_prompt_tokens = n_prompt_tokens
        self.n_ctx = n_ctx

    def details(self) -> dict[str, str | int]:
        """See RocmForgeError."""
        return {"n_prompt_tokens": self.n_prompt_tokens, "n_ctx": self.n_ctx}

    @classmethod
    def _keywords(cls, details: Mapping[str, str | int]) -> dict[str, Any]:
        names = ("n_prompt_tokens", "n_ctx")
        return {name: details[name] for name in names if isinstance(details.get(name), int)}


class InvalidApiKey(InvalidRequest):
    """The API key is missing or wrong."""

    code = "invalid_api_key"
    http_status = 401


class ModelNotFound(InvalidRequest):
    """The request names a model that is not served here."""

    code = "model_not_found"
    http_status = 404


class RouteNotFound(InvalidRequest):
    """No route has this path."""

    code = "route_not_found"
    http_status = 404


class MethodNotAllowed(InvalidRequest):
    """The route does not take this method."""

    code = "method_not_allowed"
    http_status = 405


class RequestTooLarge(InvalidRequest):
    """The body is larger than the configured limit."""

    code = "request_too_large"
    http_status = 413


class UploadTimedOut(InvalidRequest):
    """The body did not arrive in time."""

    code = "upload_timed_out"
    http_status = 408


class HeadersTooLarge(InvalidRequest):
    """The headers are larger than the configured limit."""

    code = "headers_too_large"
    http_status = 431


class UnsupportedMediaType(InvalidRequest):
    """The body is not JSON."""

    code = "unsupported_media_type"
    http_status = 415


class InvalidConfiguration(RocmForgeError):
    """A setting is impossible or unknown."""

    _category = ErrorCategory.User
    code = "invalid_configuration"


class EngineNotInitialized(RocmForgeError):
    """No engine is there to serve the request now."""

    _category = ErrorCategory.Recoverable
    code = "engine_not_initialized"


class ModelLoading(EngineNotInitialized):
    """The model is still being loaded; the message says how far."""

    code = "model_loading"


class EngineRecovering(EngineNotInitialized):
    """The engine is being restarted, or its circuit is open."""

    code = "engine_recovering"


class GenerationFailed(RocmForgeError):
    """A request failed while tokens were made."""

    code = "generation_failed"


class PoisonRequest(GenerationFailed):
    """A request that was proven to kill the engine."""

    code = "poison_request"


class InferenceFailed(RocmForgeError):
    """The forward pass gave no usable logits."""

    code = "inference_failed"


class InternalError(RocmForgeError):
    """A defect in ROCmForge."""


class LockPoisoned(RocmForgeError):
    """A lock could not be taken in time, or its holder died."""

    code = "lock_poisoned"
