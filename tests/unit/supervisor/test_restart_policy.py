"""Back-off, cap, and what resets them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rocmforge.config import SupervisorConfig
from rocmforge.supervisor.restart_policy import RestartPolicy


def test_restarts_without_progress_wait_longer_and_end():
    config = SupervisorConfig(
        restart_delay_s=0.1, restart_backoff=2.0, restart_max_delay_s=0.5, max_restarts=5
    )
    policy = RestartPolicy(config)
    assert [policy.delay_s() for _ in range(7)] == [0.1, 0.2, 0.4, 0.5, 0.5, None, None]
    policy.progress()
    assert policy.delay_s() == 0.1


def test_progress_each_time_means_no_end():
    policy = RestartPolicy(SupervisorConfig(max_restarts=1))
    for _ in range(100):
        policy.progress()
        assert policy.delay_s() == SupervisorConfig().restart_delay_s


@given(st.floats(1.0, 1e300), st.integers(1, 3000))
def test_no_setting_overflows(backoff, max_restarts):
    config = SupervisorConfig(restart_backoff=backoff, max_restarts=max_restarts)
    policy = RestartPolicy(config)
    delays = [policy.delay_s() for _ in range(max_restarts + 1)]
    assert delays.pop() is None
    assert delays == sorted(delays)
    assert delays[-1] <= config.restart_max_delay_s
