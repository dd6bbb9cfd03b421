"""The engine's promises to the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CHILD = (
    "import time; from rocmforge.wire import lifeline as l\n"
    "print(l.die_with_parent(), l.offer_to_oom_killer(), flush=True); time.sleep(60)"
)
PARENT = (
    "import subprocess, sys\n"
    "p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)\n"
    "print(p.pid, flush=True); p.wait()"
)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_dies_with_its_parent_and_first_when_memory_runs_out():
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "True True\n"
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > 0
        os.kill(parent.pid, signal.SIGKILL)
        deadline = time.monotonic() + 2.0
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(pid)
