"""What each error of the GPU library means here: `hipError_t` → HipErrorKind.

Whoever calls the library turns its result into an error with `hip_error`. A number that is not in
the table (a newer library) counts as a device error: tried again, and then the engine is replaced.
"""

from __future__ import annotations

from typing import Final

from rocmforge.errors import HipError, HipErrorKind

_Kind = HipErrorKind
# By name, as the library's headers have them; the number is the library's.
HIP_CODES: Final[dict[int, tuple[str, HipErrorKind]]] = {
    1: ("hipErrorInvalidValue", _Kind.DeviceError),
    2: ("hipErrorOutOfMemory", _Kind.OutOfMemory),
    3: ("hipErrorNotInitialized", _Kind.InitializationFailed),
    4: ("hipErrorDeinitialized", _Kind.InitializationFailed),
    5: ("hipErrorProfilerDisabled", _Kind.QueryFailed),
    6: ("hipErrorProfilerNotInitialized", _Kind.QueryFailed),
    7: ("hipErrorProfilerAlreadyStarted", _Kind.QueryFailed),
    8: ("hipErrorProfilerAlreadyStopped", _Kind.QueryFailed),
    9: ("hipErrorInvalidConfiguration", _Kind.LaunchRefused),
    12: ("hipErrorInvalidPitchValue", _Kind.CopyFailed),
    13: ("hipErrorInvalidSymbol", _Kind.KernelLoadFailed),
    17: ("hipErrorInvalidDevicePointer", _Kind.CopyFailed),
    21: ("hipErrorInvalidMemcpyDirection", _Kind.CopyFailed),
    35: ("hipErrorInsufficientDriver", _Kind.InitializationFailed),
    52: ("hipErrorMissingConfiguration", _Kind.LaunchRefused),
    53: ("hipErrorPriorLaunchFailure", _Kind.LaunchFailed),
    98: ("hipErrorInvalidDeviceFunction", _Kind.KernelLoadFailed),
    100: ("hipErrorNoDevice", _Kind.DeviceNotFound),
    101: ("hipErrorInvalidDevice", _Kind.DeviceNotFound),
    200: ("hipErrorInvalidImage", _Kind.KernelLoadFailed),
    201: ("hipErrorInvalidContext", _Kind.DeviceLost),
    202: ("hipErrorContextAlreadyCurrent", _Kind.DeviceError),
    205: ("hipErrorMapFailed", _Kind.CopyFailed),
    206: ("hipErrorUnmapFailed", _Kind.CopyFailed),
    207: ("hipErrorArrayIsMapped", _Kind.CopyFailed),
    208: ("hipErrorAlreadyMapped", _Kind.CopyFailed),
    209: ("hipErrorNoBinaryForGpu", _Kind.KernelLoadFailed),
    210: ("hipErrorAlreadyAcquired", _Kind.DeviceError),
    211: ("hipErrorNotMapped", _Kind.CopyFailed),
    212: ("hipErrorNotMappedAsArray", _Kind.CopyFailed),
    213: ("hipErrorNotMappedAsPointer", _Kind.CopyFailed),
    214: ("hipErrorECCNotCorrectable", _Kind.DeviceLost),
    215: ("hipErrorUnsupportedLimit", _Kind.QueryFailed),
    216: ("hipErrorContextAlreadyInUse", _Kind.DeviceError),
    217: ("hipErrorPeerAccessUnsupported", _Kind.CopyFailed),
    218: ("hipErrorInvalidKernelFile", _Kind.KernelLoadFailed),
    219: ("hipErrorInvalidGraphicsContext", _Kind.DeviceError),
    300: ("hipErrorInvalidSource", _Kind.KernelLoadFailed),
    301: ("hipErrorFileNotFound", _Kind.KernelLoadFailed),
    302: ("hipErrorSharedObjectSymbolNotFound", _Kind.KernelLoadFailed),
    303: ("hipErrorSharedObjectInitFailed", _Kind.KernelLoadFailed),
    304: ("hipErrorOperatingSystem", _Kind.DeviceError),
    400: ("hipErrorInvalidHandle", _Kind.DeviceError),
    401: ("hipErrorIllegalState", _Kind.DeviceError),
    500: ("hipErrorNotFound", _Kind.KernelLoadFailed),
    600: ("hipErrorNotReady", _Kind.QueryFailed),
    700: ("hipErrorIllegalAddress", _Kind.IllegalAccess),
    701: ("hipErrorLaunchOutOfResources", _Kind.LaunchRefused),
    702: ("hipErrorLaunchTimeOut", _Kind.LaunchFailed),
    704: ("hipErrorPeerAccessAlreadyEnabled", _Kind.DeviceError),
    705: ("hipErrorPeerAccessNotEnabled", _Kind.CopyFailed),
    708: ("hipErrorSetOnActiveProcess", _Kind.DeviceError),
    709: ("hipErrorContextIsDestroyed", _Kind.DeviceLost),
    710: ("hipErrorAssert", _Kind.LaunchFailed),
    712: ("hipErrorHostMemoryAlreadyRegistered", _Kind.CopyFailed),
    713: ("hipErrorHostMemoryNotRegistered", _Kind.CopyFailed),
    719: ("hipErrorLaunchFailure", _Kind.LaunchFailed),
    720: ("hipErrorCooperativeLaunchTooLarge", _Kind.LaunchRefused),
    801: ("hipErrorNotSupported", _Kind.KernelLoadFailed),
    900: ("hipErrorStreamCaptureUnsupported", _Kind.LaunchRefused),
    901: ("hipErrorStreamCaptureInvalidated", _Kind.LaunchRefused),
    902: ("hipErrorStreamCaptureMerge", _Kind.LaunchRefused),
    903: ("hipErrorStreamCaptureUnmatched", _Kind.LaunchRefused),
    904: ("hipErrorStreamCaptureUnjoined", _Kind.LaunchRefused),
    905: ("hipErrorStreamCaptureIsolation", _Kind.LaunchRefused),
    906: ("hipErrorStreamCaptureImplicit", _Kind.LaunchRefused),
    907: ("hipErrorCapturedEvent", _Kind.LaunchRefused),
    908: ("hipErrorStreamCaptureWrongThread", _Kind.LaunchRefused),
    910: ("hipErrorGraphExecUpdateFailure", _Kind.LaunchRefused),
    911: ("hipErrorInvalidChannelDescriptor", _Kind.LaunchRefused),
    912: ("hipErrorInvalidTexture", _Kind.LaunchRefused),
    999: ("hipErrorUnknown", _Kind.DeviceError),
    1052: ("hipErrorRuntimeMemory", _Kind.DeviceError),
    1053: ("hipErrorRuntimeOther", _Kind.DeviceError),
    1054: ("hipErrorInvalidClusterSize", _Kind.LaunchRefused),
}


def hip_error(code: int, doing: str) -> HipError:
    """The error for result `code` (not 0) of a library call; `doing` says what was tried."""
    name, kind = HIP_CODES.get(code, (f"unknown error {code}", HipErrorKind.DeviceError))
    return HipError(f"{doing}: {name} ({code})", kind=kind)
