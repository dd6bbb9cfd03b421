"""What penalties count."""

from __future__ import annotations

import numpy as np
import pytest

from rocmforge import _native
from rocmforge.request import SamplingParams
from rocmforge.sampling.token_counts import TokenCounts


def test_without_penalties_nothing_is_counted():
    assert TokenCounts.of(SamplingParams(), [1, 2]) is None


def test_a_repetition_penalty_counts_prompt_and_output():
    counts = TokenCounts.of(SamplingParams(repetition_penalty=1.1), (5, 3, 5))
    assert counts.up_to([]).items() == [(5, 0), (3, 0)]
    assert counts.up_to([3, 8]).items() == [(5, 0), (3, 1), (8, 1)]
    assert counts.up_to([3, 8, 8]).items() == [(5, 0), (3, 1), (8, 2)]
    assert counts.up_to([3, 8, 8]).items() == [(5, 0), (3, 1), (8, 2)]


@pytest.mark.parametrize("field", ["presence_penalty", "frequency_penalty"])
def test_the_other_penalties_count_the_output_alone(field):
    counts = TokenCounts.of(SamplingParams(**{field: 0.5}), [5, 3])
    assert counts.up_to([3, 3]).items() == [(3, 2)]


def test_ids_outside_the_vocabulary_are_refused():
    history = _native.TokenHistory()
    with pytest.raises(ValueError):
        history.add_prompt([-1])
    history.add_prompt([9])
    off = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.1, "temperature": 1.0}
    rest = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "n_logprobs": -1, "seed": 0}
    place = {"choice": 0, "position": 0, "biases": [], "suppressed": []}
    row = _native.sample_row_params(**off, **rest, **place, history=history)
    sampler = _native.BatchSampler(_native.ThreadPool(1), "auto")
    with pytest.raises(ValueError, match="vocabulary"):
        sampler.sample(np.zeros((1, 9), np.float32), [row])
