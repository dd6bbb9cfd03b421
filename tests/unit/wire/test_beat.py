"""The page that two processes share."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rocmforge.errors import InternalError
from rocmforge.wire.beat import PAGE_BYTES, BeatPage, EnginePhase


@pytest.fixture
def page():
    page = BeatPage.create()
    yield page
    page.close()


def test_another_process_counts_in_it(page):
    code = (
        "import sys; from rocmforge.wire.beat import BeatPage, EnginePhase\n"
        "page = BeatPage.attach(int(sys.argv[1])); page.beat(); page.beat()\n"
        "page.phase = EnginePhase.serving; counter = page.op_counter; counter[0] += 40"
    )
    before = page.progress
    fd = page.fileno()
    subprocess.run([sys.executable, "-c", code, str(fd)], pass_fds=(fd,), check=True)
    assert (page.loop_beats, page.ops_done, page.phase) == (2, 40, EnginePhase.serving)
    assert page.progress != before


def test_any_single_change_is_progress(page):
    seen = {page.progress}
    page.beat()
    seen.add(page.progress)
    page.op_counter[0] += 1
    seen.add(page.progress)
    page.phase = EnginePhase.loading
    seen.add(page.progress)
    assert len(seen) == 4


def test_counters_lie_on_cache_lines_of_their_own(page):
    page.beat()
    page.op_counter[0] = 7
    raw = os.pread(page.fileno(), PAGE_BYTES, 0)
    at = [i for i, byte in enumerate(raw) if byte]
    assert len({i // 64 for i in at}) == len(at) == 2


def test_the_engine_cannot_shrink_the_page_under_the_server(page):
    with pytest.raises(PermissionError):
        os.ftruncate(page.fileno(), 0)


def test_a_page_of_the_wrong_size_is_refused():
    fd = os.memfd_create("not-a-page")
    try:
        with pytest.raises(InternalError, match="no beat page"):
            BeatPage.attach(fd)
    finally:
        os.close(fd)


def test_a_scribbled_phase_is_still_readable(page):
    os.pwrite(page.fileno(), b"\xff" * PAGE_BYTES, 0)
    assert page.phase is EnginePhase.serving
