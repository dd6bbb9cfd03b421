"""Sound files of impossible models: metadata and tensors that contradict each other or common
sense. Loading answers with an error of ours, or with a model whose steps run.
"""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest

from rocmforge.backends.ops import KvGeometry, StepLimits
from rocmforge.backends.reference import ReferenceBackend
from rocmforge.engine.step_plan import StepPlan
from rocmforge.errors import RocmForgeError
from rocmforge.gguf.writer import GGUFWriter
from rocmforge.models.loading import load_model
from rocmforge.quant.encode import encode
from rocmforge.quant.formats import FORMATS, GGMLType
from tests.support.gguf_files import ARCHITECTURES, tiny_model_metadata, tiny_model_tensors

KEYS = (
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "context_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "expert_count",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
)
INTEGERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 1023, 1024, 1025, 2**20 + 1, 2**31 - 1, 2**31, 2**63)
INTEGERS += (-1, -16, -(2**31), -(2**63))
NUMBERS = (0.0, -0.0, 1e-45, 1e-38, 1e-6, 0.5, 1.0, 10.0, 3.4e38, -1.0, -3.4e38)
NUMBERS += (math.nan, math.inf, -math.inf)
OTHERS = (True, "", "llama", "x" * 100_000, "linear", "yarn", "longrope", "su", "\0")
ARRAYS = ([4, 4], [4, 2], [0], [2**31], [0.5], ["4"], [True], [[4], [4]], np.array([], np.uint32))
VALUES = (None, *INTEGERS, *NUMBERS, *OTHERS, *ARRAYS)
SLOWEST_S = 5.0


def base_metadata(architecture):
    return tiny_model_metadata(
        architecture, n_layers=2, n_embd=32, n_heads=2, n_ff=32, n_ctx=64, n_vocab=300,
        n_kv_heads=1, with_tokenizer=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights():
    """{architecture: tensors} that fit to base_metadata."""
    return {name: tiny_model_tensors(base_metadata(name)) for name in ARCHITECTURES}


def write(path, metadata, tensors):
    writer = GGUFWriter(path)
    for key, value in metadata.items():
        if value is not None:
            writer.add(key, value)
    for name, array in tensors.items():
        if isinstance(array, tuple):
            writer.add_tensor(name, *array)
        else:
            writer.add_tensor(name, array.shape, GGMLType.F32, array)
    writer.write()


def outcome(path):
    """The error's message, or None; any error but one of ours escapes."""
    started = time.monotonic()
    backend = ReferenceBackend()
    try:
        run_step(load_model(path, backend), backend)
        message = None
    except RocmForgeError as error:
        message = error.message
    assert time.monotonic() - started < SLOWEST_S
    assert message is None or len(message) < 2000
    return message


def run_step(model, backend):
    """Two tokens at once; what the logits are is another matter."""
    spec = model.spec
    kv = KvGeometry(
        n_layers=spec.n_layers,
        n_kv_heads=spec.n_kv_heads,
        head_dim=spec.head_dim,
        n_blocks=1,
        block_tokens=16,
        kv_type="f32",
    )
    limits = StepLimits(max_tokens=2, max_sequences=1, max_rows=1, max_blocks_per_sequence=1)
    program = backend.create_program(model.forward, kv, limits)
    plan = StepPlan(
        token_ids=np.array([1, 2], np.int32),
        positions=np.arange(2, dtype=np.int32),
        query_start=np.array([0, 2], np.int32),
        context_len=np.array([2], np.int32),
        block_tables=np.zeros((1, 1), np.int32),
        logits_rows=np.array([1], np.int32),
    )
    with np.errstate(all="ignore"):
        assert program.run(plan).shape == (1, spec.n_vocab)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_models_themselves_are_sound(tmp_path, weights, architecture):
    write(tmp_path / "m.gguf", base_metadata(architecture), weights[architecture])
    assert outcome(tmp_path / "m.gguf") is None


@pytest.mark.parametrize("key", KEYS)
def test_one_hostile_value(tmp_path, weights, key):
    path = tmp_path / "m.gguf"
    for value in VALUES:
        write(path, base_metadata("llama") | {f"llama.{key}": value}, weights["llama"])
        message = outcome(path)
        if value is not None and isinstance(value, float) and math.isnan(value):
            assert message is not None, "NaN is no value for anything"
            assert f"llama.{key}" in message


# Unusual, but possible: what they do together is the question.
POSSIBLE = {
    "attention.sliding_window": (0, 1, 2, 2**28),
    "attention.layer_norm_rms_epsilon": (1e-12, 1.0),
    "context_length": (1, 2, 2**28, [7, 7]),
    "rope.dimension_count": (2, 4, 16),
    "rope.freq_base": (1.0, 1, 1e15),
    "rope.scale_linear": (1e-3, 1.0, 1e6),
    "rope.scaling.factor": (1e-3, 1.0, 4.0, 1e6),
    "rope.scaling.original_context_length": (1, 2, 2**28),
    "rope.scaling.attn_factor": (1e-6, 1e6),
    "rope.scaling.yarn_beta_fast": (1e-6, 1e6),
    "rope.scaling.yarn_beta_slow": (1e-6, 1e6),
    "rope.scaling.yarn_ext_factor": (0.0, 0.5, 1.0),
}


def odd_change(rng):
    """(key, value): mostly possible, sometimes not."""
    if rng.random() < 0.15:
        return rng.choice(KEYS), rng.choice(VALUES)
    key = rng.choice(list(POSSIBLE))
    return key, rng.choice(POSSIBLE[key])


def test_several_hostile_values(tmp_path, weights):
    path = tmp_path / "m.gguf"
    n_loaded = 0
    for seed in range(600):
        rng = random.Random(seed)
        architecture = rng.choice(ARCHITECTURES)
        odd = dict(odd_change(rng) for _ in range(5))
        changes = {f"{architecture}.{key}": value for key, value in odd.items()}
        if rng.random() < 0.5:
            kind = rng.choice(("linear", "yarn"))
            changes[f"{architecture}.rope.scaling.type"] = kind
        write(path, base_metadata(architecture) | changes, weights[architecture])
        try:
            n_loaded += outcome(path) is None
        except BaseException as error:
            error.add_note(f"seed {seed}: {str(changes)[:500]}")
            raise
    assert 100 < n_loaded < 500


@pytest.mark.parametrize("original", [1, 2, 64, 2**28])
@pytest.mark.parametrize("n_ctx", [1, 64, 2**28])
def test_the_ends_of_longrope(tmp_path, weights, original, n_ctx):
    scaling = {"type": "longrope", "original_context_length": original}
    changes = {f"llama.rope.scaling.{key}": value for key, value in scaling.items()}
    tables = {
        "rope_factors_long.weight": np.full(8, 1e-30, np.float32),
        "rope_factors_short.weight": np.full(8, 1e30, np.float32),
    }
    path = tmp_path / "m.gguf"
    metadata = base_metadata("llama") | changes | {"llama.context_length": n_ctx}
    write(path, metadata, weights["llama"] | tables)
    assert outcome(path) is None
    write(path, metadata, weights["llama"])
    which = "long" if n_ctx > original else "short"
    assert f"lacks rope_factors_{which}.weight" in outcome(path)


def changed_tensors(rng, tensors):
    """One to three tensors removed, renamed, reshaped, of another type, or with odd numbers."""
    found = dict(tensors)
    for name in rng.sample(list(tensors), rng.randint(1, 3)):
        array = found.pop(name)
        match rng.randrange(7):
            case 0:
                continue
            case 1:
                found[name + "x"] = array
            case 2:
                found[name] = np.ascontiguousarray(array.T)
            case 3:
                found[name] = array[..., :1].copy()
            case 4:
                found[name] = array.reshape(1, *array.shape)
            case 5:
                odd = rng.choice((np.nan, np.inf, 3e38, 1e-45, 0.0))
                found[name] = np.full_like(array, odd)
            case 6:
                found[name] = another_type(rng, array)
    return found


def another_type(rng, array):
    """(shape, type, data): any type that its rows can have."""
    fitting = [form for form in FORMATS.values() if array.shape[-1] % form.block_size == 0]
    form = rng.choice(fitting)
    n_bytes = array.size // form.block_size * form.block_bytes
    return array.shape, form.type, rng.randbytes(n_bytes)


def test_tensors_that_do_not_fit(tmp_path, weights):
    path = tmp_path / "m.gguf"
    n_loaded = 0
    for seed in range(400):
        rng = random.Random(seed)
        architecture = rng.choice(ARCHITECTURES)
        tensors = changed_tensors(rng, weights[architecture])
        write(path, base_metadata(architecture), tensors)
        try:
            n_loaded += outcome(path) is None
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert 20 < n_loaded < 380


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 1e-45, 1e-38, 3e38])
def test_hostile_rope_factors(tmp_path, weights, value):
    factors = np.full(8, 2, np.float32)
    factors[3] = value
    write(
        tmp_path / "m.gguf",
        base_metadata("llama"),
        weights["llama"] | {"rope_freqs.weight": factors},
    )
    message = outcome(tmp_path / "m.gguf")
    assert (message is None) == (value in (1e-38, 3e38)), message


def test_many_layers_of_which_none_is_there(tmp_path, weights):
    write(
        tmp_path / "m.gguf", base_metadata("llama") | {"llama.block_count": 1024}, weights["llama"]
    )
    message = outcome(tmp_path / "m.gguf")
    assert "lacks 9198 tensors" in message
    assert "and 9186 more" in message


def test_a_quantised_model_with_random_bytes(tmp_path, weights):
    """Scales of any bits: the matrices may hold NaN and infinities, loading still succeeds."""
    rng = random.Random(0)
    for name in ("Q8_0", "Q4_0", "MXFP4", "IQ4_NL"):
        form = FORMATS[GGMLType[name]]
        tensors = {
            key: (array.shape, form.type, rng.randbytes(array.size // 32 * form.block_bytes))
            if array.shape[-1] == 32
            else array
            for key, array in weights["llama"].items()
        }
        tensors["output_norm.weight"] = ((32,), form.type, encode_or_random(form, rng))
        write(tmp_path / "m.gguf", base_metadata("llama"), tensors)
        assert outcome(tmp_path / "m.gguf") is None


def encode_or_random(form, rng):
    """One block."""
    if form.name == "Q8_0":
        return encode(form.type, np.ones((1, 32), np.float32))
    return rng.randbytes(form.block_bytes)
