"""benchmarks/peers.py: questions and answers with a child process."""

from __future__ import annotations

import os
import sys

import pytest
from peers import Peer, PeerFailed, core_ns

from tests.support.source_tree import ROOT

SCRIPTED = [sys.executable, str(ROOT / "tests/support/scripted_peer.py"), str(ROOT / "benchmarks")]


def test_answers_are_not_mixed_with_prints():
    peer = Peer("scripted", [*SCRIPTED, "0.5"])
    assert peer.ask("load", threads=3, n_ctx=64, n_seq=[1])["threads"] == 3
    assert peer.ask("prompt", n_tokens=8) == {"seconds": 0.5}
    assert peer.core_ns()[0] >= 0
    peer.close()


def test_a_child_that_ends_is_told():
    peer = Peer("scripted", [*SCRIPTED, "0.5"])
    peer.ask("load", threads=1, n_ctx=64, n_seq=[1])
    with pytest.raises(PeerFailed, match="scripted ended with code 1 at 'prompt'"):
        peer.ask("prompt", n_tokens=65)
    with pytest.raises(PeerFailed, match="scripted ended"):
        peer.ask("prompt", n_tokens=1)
    peer.close()


def test_processor_time_grows():
    if not os.path.exists("/proc/self/schedstat"):
        assert core_ns() == (0, 0)
        return
    before, _ = core_ns()
    sum(range(1_000_000))
    assert core_ns()[0] > before
