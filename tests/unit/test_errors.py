"""The taxonomy is the contract's: categories, recoverability, and types that survive the wire."""

from __future__ import annotations

import msgspec
import pytest

from rocmforge import errors as e
from rocmforge.errors import ErrorCategory, HipError, HipErrorKind, RocmForgeError
from rocmforge.wire.protocol import WireError

CATEGORIES = {
    ErrorCategory.User: """InvalidRequest InvalidConfiguration InvalidTemperature InvalidTopK
        InvalidTopP InvalidCacheConfiguration InvalidTensorShape UnsupportedModelFormat
        UnsupportedParameter ContextLengthExceeded ModelNotFound InvalidApiKey UploadTimedOut
        HeadersTooLarge""",
    ErrorCategory.Recoverable: """CacheCapacityExceeded QueueCapacityExceeded BatchSizeExceeded
        EngineNotInitialized ModelLoading EngineRecovering RateLimitExceeded DeadlineExceeded""",
    ErrorCategory.Backend: """HipError GpuMemoryAllocationFailed GpuDeviceNotFound
        GpuKernelLaunchFailed BackendInitializationFailed""",
    ErrorCategory.Model: "ModelLoadFailed InvalidModelFile TensorNotFound MmapError IoError",
    ErrorCategory.Internal: """InvalidSequenceId RequestNotFound InvalidStateTransition EmptyLogits
        ZeroProbabilities GenerationFailed PoisonRequest InferenceFailed InternalError
        LockPoisoned""",
}
CASES = [(name, category) for category, names in CATEGORIES.items() for name in names.split()]


@pytest.mark.parametrize(("name", "category"), CASES)
def test_category(name, category):
    error = getattr(e, name)("what happened; what to do")
    assert error.category() is category
    assert error.is_user_error() == (category is ErrorCategory.User)
    assert error.is_internal_error() == (category is ErrorCategory.Internal)
    recoverable = category in (ErrorCategory.Recoverable, ErrorCategory.Backend)
    assert error.is_recoverable() == recoverable
    assert str(error) == error.message == "what happened; what to do"


def test_invalid_entry_is_internal():
    assert e.CacheError.InvalidEntry("x").category() is ErrorCategory.Internal


@pytest.mark.parametrize("kind", list(HipErrorKind))
def test_hip_error_classes(kind):
    error = HipError("x", kind=kind)
    permanent = {"initialization_failed", "device_not_found", "kernel_load_failed"}
    assert error.is_recoverable() == (kind.value not in permanent)
    assert error.is_sticky() == (kind.value in {"launch_failed", "illegal_access", "device_lost"})


def every_class(root: type[RocmForgeError]) -> list[type[RocmForgeError]]:
    return [root, *(c for child in root.__subclasses__() for c in every_class(child))]


@pytest.mark.parametrize("cls", every_class(RocmForgeError), ids=lambda c: c.__name__)
def test_types_survive_the_wire(cls):
    frame = msgspec.msgpack.encode(WireError.of(cls("message", param="field")))
    back = msgspec.msgpack.decode(frame, type=WireError).to_error()
    assert type(back) is cls
    assert (back.message, back.param) == ("message", "field")


@pytest.mark.parametrize("kind", list(HipErrorKind))
def test_the_kind_of_a_device_error_survives_the_wire(kind):
    frame = msgspec.msgpack.encode(WireError.of(HipError("x", kind=kind)))
    for back in (
        msgspec.msgpack.decode(frame, type=WireError).to_error(),
        HipError("x", kind=kind).copy(),
    ):
        assert isinstance(back, HipError)
        assert back.kind is kind
        assert (back.is_sticky(), back.is_recoverable()) == (
            HipError("x", kind=kind).is_sticky(),
            HipError("x", kind=kind).is_recoverable(),
        )


def test_the_lengths_of_a_prompt_that_does_not_fit_survive_the_wire():
    error = e.ContextLengthExceeded("x", n_prompt_tokens=5000, n_ctx=4096, param="prompt")
    for back in (WireError.of(error).to_error(), error.copy()):
        assert isinstance(back, e.ContextLengthExceeded)
        assert (back.n_prompt_tokens, back.n_ctx, back.param) == (5000, 4096, "prompt")


@pytest.mark.parametrize(
    ("name", "details"),
    [
        ("HipError", {"kind": "on_fire"}),
        ("HipError", {"kind": 7, "other": 1}),
        ("ContextLengthExceeded", {"n_ctx": "many", "n_prompt_tokens": "x"}),
        ("InternalError", {"kind": "device_lost"}),
    ],
)
def test_details_that_make_no_sense_are_dropped(name, details):
    back = e.error_from_name(name, "message", None, details)
    assert back.details() == getattr(e, name)("message").details()


def test_unknown_name_becomes_internal():
    back = WireError("NoSuchError", "message").to_error()
    assert type(back) is e.InternalError
    assert "NoSuchError" in back.message


def test_codes_are_short_words():
    for cls in every_class(RocmForgeError):
        assert cls.code
        assert cls.code == cls.code.lower()
        assert " " not in cls.code
