"""The embedded model says what llama.cpp says: token by token, teacher-forced on llama.cpp's own
greedy continuations."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

import rocmforge
from rocmforge.embedded import EMBEDDED_MODEL_PATH

GOLDEN = json.loads(Path(__file__).with_name("embedded_greedy.json").read_text())
# Both round activations, so logits may differ by a normalised mean squared error of 1e-3: each by
# about √1e-3 of their spread over the vocabulary, the difference of two by √2 times that. Only
# where llama.cpp's own margin is larger does the order of its two best tokens bind us.
NMSE = 1e-3
TOLERANCE = math.sqrt(2 * NMSE)
MIN_SHARE = 0.95


@pytest.fixture(scope="module")
def model():
    with rocmforge.load(EMBEDDED_MODEL_PATH, device="cpu", threads=2) as loaded:
        yield loaded


def greedy_tokens(model: rocmforge.Model, entry: dict) -> np.ndarray:
    """What we would say at each position of llama.cpp's continuation."""
    n_prompt = len(entry["prompt_ids"])
    logits = model.logits(entry["prompt_ids"] + entry["greedy_ids"][:-1])
    return logits[n_prompt - 1 :].argmax(axis=1)


def margins(entry: dict) -> np.ndarray:
    """llama.cpp's margin at each position, over the spread of its logits there."""
    return np.array(entry["margin"]) / np.array(entry["logits_std"])


def test_golden_is_of_this_file_and_names_its_origin():
    assert GOLDEN["model_sha256"] == hashlib.sha256(EMBEDDED_MODEL_PATH.read_bytes()).hexdigest()
    assert GOLDEN["oracle"].startswith("llama.cpp")
    assert GOLDEN["version"]
    assert Path(GOLDEN["script"]).is_file()
    assert GOLDEN["settings"]["kv_cache"] == "f16"


def test_tokens_are_those_of_llama_cpp(model: rocmforge.Model):
    texts = [(entry["text"], entry["ids"]) for entry in GOLDEN["tokenizer"]]
    texts += [(entry["prompt"], entry["prompt_ids"]) for entry in GOLDEN["positions"]]
    assert len(texts) > 50
    for text, ids in texts:
        assert model.tokenize(text, add_special=False, parse_special=True) == ids, repr(text)


def test_greedy_tokens_are_those_of_llama_cpp(model: rocmforge.Model):
    assert model.facts.kv_type == "f16"
    n_positions = n_compared = 0
    for entry in GOLDEN["positions"]:
        ours, theirs = greedy_tokens(model, entry), np.array(entry["greedy_ids"])
        margin = margins(entry)
        binding = margin > TOLERANCE
        differs = np.flatnonzero(binding & (ours != theirs))
        assert not len(differs), (
            f"{entry['prompt']!r}: at {differs.tolist()} we say {ours[differs].tolist()}, "
            f"llama.cpp {theirs[differs].tolist()} by {margin[differs].tolist()} of the spread"
        )
        n_positions += len(theirs)
        n_compared += int(binding.sum())
    assert n_positions > 1000
    assert n_compared >= MIN_SHARE * n_positions


@pytest.mark.llama_cpp
@pytest.mark.parametrize("entry", GOLDEN["positions"][::6], ids=lambda entry: entry["prompt"][:40])
def test_llama_cpp_says_it_again(entry: dict):
    from tests.golden.make_embedded_greedy import continuation, open_model

    # Its kernels differ between machines: after a close call it may go on in another way.
    close = np.flatnonzero(margins(entry) <= TOLERANCE)
    n_sure = int(close[0]) if len(close) else len(entry["greedy_ids"])
    model = open_model()
    again = continuation(model, entry["prompt"])
    model.close()
    assert again["prompt_ids"] == entry["prompt_ids"]
    assert again["greedy_ids"][:n_sure] == entry["greedy_ids"][:n_sure]
