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
        UnsupportedParameter ContextLengthExceeded ModelNotFound InvalidApiKey""",
    ErrorCategory.Recoverable: """CacheCapacityExceeded QueueCapacityExceeded BatchSizeExceeded
        EngineNotInitialized ModelLoading EngineRecovering""",
    ErrorCategory.Backend: """HipError GpuMemoryAllocationFailed GpuDeviceNotFound
        GpuKernelLaunchFailed BackendInitializationFailed""",
    ErrorCategory.Model: "ModelLoadFailed InvalidModelFile TensorNotFound MmapError IoError",
    ErrorCategory.Internal: """InvalidSequenceId RequestNotFound InvalidStateTransition EmptyLogits
        ZeroProbabilities GenerationFailed InferenceFailed InternalError LockPoisoned""",
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


def test_unknown_name_becomes_internal():
    back = WireError("NoSuchError", "message").to_error()
    assert type(back) is e.InternalError
    assert "NoSuchError" in back.message


def test_codes_are_short_words():
    for cls in every_class(RocmForgeError):
        assert cls.code
        assert cls.code == cls.code.lower()
        assert " " not in cls.code
