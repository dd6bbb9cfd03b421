from __future__ import annotations

import gc

from rocmforge.heap import pause_collection, release_free_memory, settle


def test_collection_is_paused_and_what_is_alive_stays_out_of_it():
    try:
        pause_collection()
        assert not gc.isenabled()
        settle()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
        gc.enable()


def resident_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) * 1024


def test_freed_memory_leaves_the_process():
    # Above what pymalloc takes, below what malloc maps by itself; one in ten stays, so that the
    # heap cannot shrink from its end.
    blocks = [bytes(1000) for _ in range(64 * 1024)]
    kept = blocks[::10]
    del blocks
    before = resident_bytes()
    assert release_free_memory()
    assert before - resident_bytes() > 16 << 20
    assert len(kept) > 6000
