"""The limits that benchmarks compare with are measured, and impossible requests are refused."""

from __future__ import annotations

import platform

import pytest

from rocmforge import _native
from rocmforge.backends.select import available_isas


@pytest.mark.parametrize("n_threads", [1, 2])
def test_reads(n_threads):
    rates = _native.read_limits(n_threads, 8 * 2**20, 0.01)
    assert rates
    # Between a hard disk and a hundred times the best memory of today.
    assert all(1e8 < rate < 1e14 for rate in rates.values()), rates


def test_multiply_adds():
    rates = _native.multiply_limits(2, 0.05)
    assert all(1e8 < rate < 1e15 for rate in rates.values()), rates
    if platform.machine() in ("x86_64", "aarch64"):
        assert any(name.endswith("_f32") for name in rates)
    if "avx2" in available_isas():
        assert {"avx2", "avx2_f32"} <= set(rates)


@pytest.mark.parametrize(
    ("threads", "n_bytes", "seconds"), [(0, 2**20, 1), (1, 10, 1), (1, 2**20, 0)]
)
def test_impossible_reads_are_refused(threads, n_bytes, seconds):
    with pytest.raises(ValueError, match=r"must be positive|too few bytes"):
        _native.read_limits(threads, n_bytes, seconds)


@pytest.mark.parametrize(("threads", "seconds"), [(0, 1), (1, 0), (1, float("nan"))])
def test_impossible_multiplications_are_refused(threads, seconds):
    with pytest.raises(ValueError, match="must be positive"):
        _native.multiply_limits(threads, seconds)
