"""No error of the GPU library is missed, and the ones that matter mean what they must."""

from __future__ import annotations

import re

import pytest

from rocmforge.backends.hip_codes import HIP_CODES, hip_error
from rocmforge.errors import HipErrorKind
from rocmforge.retry import is_retryable

# Every value of hipError_t in the headers of ROCm 7 but success; names that share one left out.
NUMBERS = [
    *(1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17, 21, 35, 52, 53, 98, 100, 101, 200, 201, 202),
    *range(205, 220),
    *(300, 301, 302, 303, 304, 400, 401, 500, 600, 700, 701, 702, 704, 705, 708, 709, 710),
    *(712, 713, 719, 720, 801, *range(900, 909), 910, 911, 912, 999, 1052, 1053, 1054),
]


def test_every_error_of_the_library_is_in_the_table():
    assert sorted(HIP_CODES) == NUMBERS
    names = [name for name, _ in HIP_CODES.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"hipError[A-Z]\w+", name) for name in names)
    assert {kind for _, kind in HIP_CODES.values()} == set(HipErrorKind)


@pytest.mark.parametrize(
    ("code", "kind", "is_retried"),
    [
        (2, HipErrorKind.OutOfMemory, True),
        (100, HipErrorKind.DeviceNotFound, False),
        (214, HipErrorKind.DeviceLost, False),
        (700, HipErrorKind.IllegalAccess, False),
        # A launch that was refused ran nothing; one that failed has poisoned the process.
        (701, HipErrorKind.LaunchRefused, True),
        (719, HipErrorKind.LaunchFailed, False),
        (12345, HipErrorKind.DeviceError, True),
    ],
)
def test_what_an_error_means(code, kind, is_retried):
    error = hip_error(code, "copying logits")
    assert (error.kind, is_retryable(error)) == (kind, is_retried)
    assert "copying logits" in error.message
    assert str(code) in error.message
