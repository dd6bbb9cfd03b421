"""The sampler against published vectors, transformers' distributions, and a plain numpy reading of
the rules."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocmforge import _native
from rocmforge.errors import EmptyLogits, InferenceFailed, ZeroProbabilities
from rocmforge.request import SamplingParams
from rocmforge.sampling.sampler import SampledToken, Sampler, SampleRow

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "sampling.json").read_text())


def row(params: SamplingParams, *, position: int = 0, **changes) -> SampleRow:
    fields = {
        "params": params,
        "seed": 11,
        "choice": 0,
        "position": position,
        "prompt_ids": (),
        "generated_ids": (),
    }
    return SampleRow(**(fields | changes))


def draw(logits: np.ndarray, params: SamplingParams, n: int, **changes) -> Counter[int]:
    rows = [row(params, position=i, **changes) for i in range(n)]
    tokens = Sampler(logits.size).sample(np.tile(logits, (n, 1)), rows)
    return Counter(t.token_id for t in tokens)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    # Known answers published with Random123 (kat_vectors, philox4x32 10).
    [
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, (2**32 - 1,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    assert _native.philox4x32_10(counter, *key) == expected


def test_uniform_draws_differ_by_every_key_part():
    base = (5, 0, 7, 0)
    values = {_native.philox_uniform(*base)}
    for i in range(4):
        changed = list(base)
        changed[i] += 1
        values.add(_native.philox_uniform(*changed))
    assert len(values) == 5
    assert all(0.0 <= v < 1.0 for v in values)


@pytest.mark.parametrize("golden", GOLDEN["rows"], ids=lambda g: json.dumps(g["case"]))
def test_distribution_is_transformers(golden):
    logits = np.array(golden["logits"], np.float32)
    probs = np.array(golden["probs"])
    n = 20_000
    counts = draw(logits, SamplingParams(**golden["case"]), n, prompt_ids=GOLDEN["history"])
    assert set(counts) <= set(np.flatnonzero(probs).tolist())
    observed = np.array([counts[i] for i in range(probs.size)])
    kept = probs * n >= 5
    chi2 = float(((observed - n * probs)[kept] ** 2 / (n * probs)[kept]).sum())
    # Wilson–Hilferty: the 1 - 1e-6 quantile (z = 4.75) of chi-square with `dof` degrees of freedom.
    dof = int(kept.sum())
    assert chi2 < dof * (1 - 2 / (9 * dof) + 4.75 * math.sqrt(2 / (9 * dof))) ** 3


def test_greedy_takes_the_lowest_id_of_equals():
    logits = np.array([[1.0, 3.0, 3.0, 2.0]], np.float32)
    assert Sampler(4).sample(logits, [row(SamplingParams(temperature=0))]) == [SampledToken(1)]


def test_penalties_and_bias_by_hand():
    logits = np.array([2.0, 1.9, -1.0, 0.5], np.float32)

    def greedy(**fields) -> int:
        params = SamplingParams(temperature=0, **fields)
        history = row(params, prompt_ids=(0,), generated_ids=(1, 1))
        return Sampler(4).sample(logits[None], [history])[0].token_id

    assert greedy() == 0
    assert greedy(repetition_penalty=5.0) == 3  # 0.4, 0.38, -1, 0.5
    assert greedy(presence_penalty=2.0) == 0  # the prompt's token is not charged
    assert greedy(frequency_penalty=-1.0) == 1  # two occurrences: 1.9 + 2
    assert greedy(logit_bias={2: 3.5}) == 2


def test_suppressed_tokens_are_never_chosen():
    logits = np.array([5.0, 1.0, 0.0], np.float32)
    counts = draw(logits, SamplingParams(), 500, suppressed_ids=(0,))
    assert counts[0] == 0
    assert counts[1] > counts[2] > 0


def test_bad_rows_do_not_cost_their_neighbours():
    logits = np.zeros((3, 4), np.float32)
    logits[0, 2] = np.nan
    params = SamplingParams(temperature=0)
    rows = [row(params), row(params, suppressed_ids=(0, 1, 2, 3)), row(params)]
    first, second, third = Sampler(4).sample(logits, rows)
    assert isinstance(first, InferenceFailed)
    assert isinstance(second, ZeroProbabilities)
    assert third == SampledToken(0)
    with pytest.raises(EmptyLogits):
        Sampler(4).sample(logits, rows[:1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.floats(0.05, 4.0))
def test_logprobs_are_log_softmax_of_the_raw_logits(seed, n_top, temperature):
    logits = np.random.default_rng(seed).standard_normal((1, 300)).astype(np.float32) * 6
    params = SamplingParams(temperature=temperature, logprobs=n_top, repetition_penalty=1.5)
    (token,) = Sampler(300).sample(logits, [row(params, prompt_ids=range(50))])
    raw = logits[0].astype(np.float64)
    expected = raw - raw.max() - np.log(np.exp(raw - raw.max()).sum())
    assert token.logprob == pytest.approx(expected[token.token_id], abs=1e-12)
    order = np.argsort(-raw, kind="stable")[:n_top]
    assert [t.token_id for t in token.top_logprobs] == order.tolist()
    assert [t.logprob for t in token.top_logprobs] == pytest.approx(expected[order], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 3000),
    st.floats(0.01, 1.0),
    st.floats(0.0, 1.0),
    st.floats(0.05, 3.0),
)
def test_draw_stays_inside_the_kept_set(seed, top_k, top_p, min_p, temperature):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.standard_normal(2000) * 4).astype(np.float32)  # many equal logits
    kept = kept_tokens(logits, top_k, top_p, min_p, temperature)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    assert set(draw(logits, params, 50)) <= kept


def kept_tokens(logits, top_k, top_p, min_p, temperature) -> set[int]:
    order = np.argsort(-logits, kind="stable")
    if top_k:
        order = order[:top_k]
    p = np.exp((logits[order].astype(np.float64) - logits.max()) / temperature)
    if top_p < 1:
        # One more token than the rule keeps, where rounding may decide.
        inside = np.cumsum(p) - p < top_p * p.sum() * (1 + 1e-12)
        order, p = order[inside], p[inside]
    return set(order[p >= min_p * (1 - 1e-9)].tolist())


def test_a_token_does_not_depend_on_its_batch():
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((16, 500)).astype(np.float32)
    params = SamplingParams(temperature=0.9, top_p=0.95, logprobs=2)
    rows = [row(params, position=i, choice=i % 3, seed=i * 2**33) for i in range(16)]
    together = Sampler(500).sample(logits, rows)
    alone = [Sampler(500).sample(logits[i : i + 1], [rows[i]])[0] for i in range(16)]
    assert together == alone


def test_a_row_that_goes_on_draws_what_a_row_of_its_own_draws():
    logits = np.random.default_rng(5).normal(size=(1, 300)).astype(np.float32)
    params = SamplingParams(repetition_penalty=1.3, presence_penalty=0.4, seed=2)
    sampler, generated = Sampler(300), []
    going_on = row(params, prompt_ids=range(50), generated_ids=generated)
    for position in range(50, 80):
        fresh = row(params, prompt_ids=range(50), generated_ids=list(generated), position=position)
        going_on.position = position
        (expected,) = sampler.sample(logits, [fresh])
        assert sampler.sample(logits, [going_on]) == [expected]
        generated.append(expected.token_id)
