"""One choice's tokens and states."""

from __future__ import annotations

import itertools

import pytest

from rocmforge.cache.block_pool import BlockPool
from rocmforge.cache.block_table import BlockTable
from rocmforge.engine.sequence import Sequence
from rocmforge.errors import InvalidStateTransition
from rocmforge.request import FinishReason, RequestState
from tests.support.tiny_engine import request

ALLOWED = {
    ("pending", "processing"),
    ("pending", "failed"),
    ("pending", "cancelled"),
    ("processing", "completed"),
    ("processing", "failed"),
    ("processing", "cancelled"),
}


def sequence(generated=(), **fields):
    table = BlockTable(BlockPool(4, 8))
    return Sequence(request(**fields), 0, table, arrival=0, submitted_s=0.0, generated=generated)


@pytest.mark.parametrize("start", RequestState)
@pytest.mark.parametrize("end", RequestState)
def test_states(start, end):
    s = sequence()
    s.state = start
    if (start, end) in ALLOWED:
        s.move_to(end)
        assert s.state is end
    else:
        with pytest.raises(InvalidStateTransition, match="request r, choice 0"):
            s.move_to(end)
        assert s.state is start


def test_tokens_of_any_range():
    s = sequence(generated=[4, 5, 6], prompt=[1, 2, 3])
    whole = [1, 2, 3, 4, 5, 6]
    for start, end in itertools.combinations(range(7), 2):
        assert list(s.tokens(start, end)) == whole[start:end]


@pytest.mark.parametrize(
    ("fields", "generated", "reason"),
    [
        ({"eog_ids": (9,)}, [9], FinishReason.stop),
        ({"eog_ids": (9,)}, [8], None),
        ({"eog_ids": (9,), "ignore_eos": True}, [9], None),
        ({"eog_ids": (9,), "ignore_eos": True, "stop_token_ids": (9,)}, [9], FinishReason.stop),
        ({"stop_token_ids": (5,)}, [5], FinishReason.stop),
        ({"max_tokens": 2}, [1, 2], FinishReason.length),
        ({"max_tokens": 3}, [1, 2], None),
        ({"max_tokens": 2, "eog_ids": (2,)}, [1, 2], FinishReason.stop),
        ({"max_tokens": None}, [1] * 7, FinishReason.length),
        ({"max_tokens": None}, [1] * 6, None),
        ({}, [], None),
    ],
)
def test_reasons_to_finish(fields, generated, reason):
    assert sequence(generated=generated, **fields).finish_reason(n_ctx=10) is reason


def test_ends_are_suppressed_below_min_tokens():
    fields = {"min_tokens": 2, "eog_ids": (9, 8), "stop_token_ids": (5, 9)}
    assert sequence(generated=[1], **fields).sample_row().suppressed_ids == (5, 8, 9)
    assert sequence(generated=[1, 2], **fields).sample_row().suppressed_ids == ()


def test_a_row_goes_on_with_its_sequence():
    one = sequence(generated=[4], min_tokens=3, eog_ids=(9,))
    rows = []
    for token in (5, 6, 7):
        row = one.sample_row()
        rows.append((id(row), row.position - one.num_prompt_tokens, row.suppressed_ids))
        one.generated.append(token)
    assert [place for _, place, _ in rows] == [1, 2, 3]
    assert [ids for _, _, ids in rows] == [(9,), (9,), ()]
    assert rows[0][0] == rows[1][0]


def test_the_sample_row_is_placed_behind_the_last_token():
    row = sequence(generated=[4, 5], prompt=[1, 2, 3], seed=77).sample_row()
    assert (row.seed, row.choice, row.position) == (77, 0, 5)
    assert list(row.prompt_ids) == [1, 2, 3]
    assert list(row.generated_ids) == [4, 5]
