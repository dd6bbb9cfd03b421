"""A minute of training from nothing lowers the loss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.training
@pytest.mark.timeout(150)
def test_a_minute_of_training_lowers_the_loss() -> None:
    command = [sys.executable, "-m", "training.train", "--smoke", "--seconds", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "->" in done.stdout
