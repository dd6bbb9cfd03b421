"""Loading: every tensor checked before one is copied, progress, what the loaded model says."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rocmforge.backends.reference import ReferenceBackend
from rocmforge.errors import InvalidTensorShape, IoError, TensorNotFound
from rocmforge.gguf.writer import GGUFWriter
from rocmforge.models.decoder import required_tensors
from rocmforge.models.loading import load_model
from rocmforge.quant.formats import GGMLType
from tests.support.gguf_files import (
    tiny_model_metadata,
    tiny_model_tensors,
    write_model,
    write_tiny_model,
)

METADATA = tiny_model_metadata(with_tokenizer=False)


class UntouchedBackend:
    """A backend that must not be reached."""

    def load_weights(self, tensors, progress=None):
        raise AssertionError("weights were loaded before all were checked")


def refused(tmp_path, tensors, error, metadata=METADATA):
    path = write_model(tmp_path / "m.gguf", metadata, tensors)
    with pytest.raises(error) as caught:
        load_model(path, UntouchedBackend())
    return caught.value.message


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_what_a_model_says(tmp_path, architecture):
    path = write_tiny_model(tmp_path / "m.gguf", architecture, seed=1)
    backend = ReferenceBackend()
    model = load_model(path, backend)
    assert set(model.weights) == set(required_tensors(model.spec))
    assert model.metadata["general.name"] == f"tiny random {architecture}"
    assert model.weight_types == {"F32": len(model.weights)}
    assert model.decoded_types == {}
    expected = tiny_model_tensors(tiny_model_metadata(architecture), seed=1)
    for name, ref in model.weights.items():
        array = expected[name]
        assert np.array_equal(backend.matrix(ref), array.reshape(-1, array.shape[-1]))
    assert model.weight_bytes == sum(array.nbytes for array in expected.values())


def test_weights_stay_when_the_file_goes(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", seed=1)
    backend = ReferenceBackend()
    model = load_model(path, backend)
    before = backend.matrix(model.weights["output.weight"]).copy()
    path.write_bytes(b"")
    assert np.array_equal(backend.matrix(model.weights["output.weight"]), before)


def test_progress(tmp_path):
    shares = []
    path = write_tiny_model(tmp_path / "m.gguf")
    model = load_model(path, ReferenceBackend(), progress=shares.append)
    assert len(shares) == len(model.weights)
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5
    assert shares[-1] == 1.0


def test_decoded_types_are_counted(tmp_path):
    """A backend that decodes Q5_0, for want of a kernel."""
    from dataclasses import replace

    class DecodingBackend(ReferenceBackend):
        def load_weights(self, tensors, progress=None):
            refs = super().load_weights(tensors, progress)
            return {
                name: replace(ref, type_name="F32") if ref.type_name == "Q5_0" else ref
                for name, ref in refs.items()
            }

    path = write_tiny_model(tmp_path / "m.gguf", type="Q5_0", n_layers=1)
    model = load_model(path, DecodingBackend())
    assert model.decoded_types == {"Q5_0": 9}
    assert model.weight_types == {"F32": 12}
    path = write_tiny_model(tmp_path / "m.gguf", type="Q8_0", n_layers=1)
    model = load_model(path, DecodingBackend())
    assert model.decoded_types == {}
    assert model.weight_types == {"F32": 3, "Q8_0": 9}


def test_missing_tensors_are_listed(tmp_path):
    tensors = tiny_model_tensors(METADATA)
    del tensors["blk.0.attn_q.weight"], tensors["blk.1.ffn_down.weight"]
    message = refused(tmp_path, tensors, TensorNotFound)
    assert "lacks 2 tensors that llama needs" in message
    assert "blk.0.attn_q.weight, blk.1.ffn_down.weight" in message


def test_long_lists_are_cut(tmp_path):
    tensors = tiny_model_tensors(METADATA)
    table = {"token_embd.weight": tensors["token_embd.weight"]}
    message = refused(tmp_path, table, TensorNotFound)
    assert "lacks 19 tensors" in message
    assert "blk.0.attn_norm.weight" in message
    assert message.endswith("and 7 more")


def test_misshapen_tensors_are_listed(tmp_path):
    tensors = tiny_model_tensors(METADATA)
    tensors["blk.0.attn_q.weight"] = np.zeros((64, 32), np.float32)
    tensors["output_norm.weight"] = np.zeros(63, np.float32)
    message = refused(tmp_path, tensors, InvalidTensorShape)
    assert "2 tensors do not fit the metadata" in message
    assert "blk.0.attn_q.weight is (64, 32), expected (64, 64)" in message
    assert "output_norm.weight is (63,), expected (64,)" in message


def test_one_bias_of_many_is_not_enough(tmp_path):
    tensors = tiny_model_tensors(METADATA)
    tensors["blk.1.attn_k.bias"] = np.zeros(32, np.float32)
    message = refused(tmp_path, tensors, TensorNotFound)
    assert "blk.0.attn_q.bias" in message
    assert "blk.1.attn_k.bias" not in message


@pytest.mark.parametrize(
    ("factors", "match"),
    [
        (np.ones(7, np.float32), r"is \(7,\), expected \(8,\)"),
        (np.ones((1, 8), np.float32), r"is \(1, 8\)"),
        (np.full(8, np.nan, np.float32), "not positive numbers"),
        (np.full(8, -1, np.float32), "not positive numbers"),
        (np.zeros(8, np.float32), "not positive numbers"),
    ],
)
def test_rope_factors_are_checked(tmp_path, factors, match):
    tensors = tiny_model_tensors(METADATA) | {"rope_freqs.weight": factors}
    path = write_model(tmp_path / "m.gguf", METADATA, tensors)
    with pytest.raises(InvalidTensorShape, match=f"rope_freqs.weight .*{match}"):
        load_model(path, UntouchedBackend())


def test_rope_factors_of_the_file_are_used(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", rope_factors=True, seed=5)
    model = load_model(path, ReferenceBackend())
    factors = tiny_model_tensors(METADATA, seed=5, rope_factors=True)["rope_freqs.weight"]
    plain = 10000.0 ** (-np.arange(0, 16, 2) / 16)
    found = model.decoder._inv_freq
    # float32 keeps 2^-24 of each.
    np.testing.assert_allclose(found, plain / factors, rtol=2.0**-23)
    assert "rope_freqs.weight" not in model.weights


@pytest.mark.parametrize(("original", "which"), [(128, "long"), (512, "short")])
def test_longrope_picks_a_table_by_the_context(tmp_path, original, which):
    tables = {"rope_factors_long.weight": 4.0, "rope_factors_short.weight": 2.0}
    scaling = {
        "llama.rope.scaling.type": "longrope",
        "llama.rope.scaling.original_context_length": original,
    }
    tensors = tiny_model_tensors(METADATA)
    tensors |= {name: np.full(8, value, np.float32) for name, value in tables.items()}
    path = write_model(tmp_path / "m.gguf", METADATA | scaling, tensors)
    model = load_model(path, ReferenceBackend())
    assert model.decoder._inv_freq[0] == 1 / tables[f"rope_factors_{which}.weight"]
    del tensors[f"rope_factors_{which}.weight"]
    message = refused(tmp_path, tensors, TensorNotFound, METADATA | scaling)
    assert f"lacks rope_factors_{which}.weight" in message


def test_vectors_of_other_types(tmp_path):
    """Files with F16 norms exist."""
    tensors = tiny_model_tensors(METADATA)
    writer = GGUFWriter(tmp_path / "m.gguf")
    for key, value in METADATA.items():
        writer.add(key, value)
    for name, array in tensors.items():
        type_ = GGMLType.F16 if array.ndim == 1 else GGMLType.F32
        data = array.astype(np.float16) if array.ndim == 1 else array
        writer.add_tensor(name, array.shape, type_, data)
    writer.write()
    backend = ReferenceBackend()
    model = load_model(tmp_path / "m.gguf", backend)
    found = backend.matrix(model.weights["output_norm.weight"])[0]
    assert np.array_equal(found, tensors["output_norm.weight"].astype(np.float16))


def test_errors_of_the_file(tmp_path):
    with pytest.raises(IoError):
        load_model(tmp_path / "missing.gguf", UntouchedBackend())


def resident_file_bytes() -> int:
    """Bytes of mapped files in this process's memory."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssFile")


def test_the_file_leaves_memory_as_the_weights_are_copied(tmp_path):
    """Under a backend that says how far it is within tensors too."""
    path = write_tiny_model(tmp_path / "m.gguf", n_vocab=1 << 15, with_tokenizer=False)
    n_pieces, seen = 8, []

    class CopyingBackend(ReferenceBackend):
        def load_weights(self, tensors, progress=None):
            total, done = sum(len(tensor.data) for tensor in tensors), 0
            before = resident_file_bytes()
            for tensor in tensors:
                bounds = [len(tensor.data) * i // n_pieces for i in range(n_pieces + 1)]
                for begin, end in pairwise(bounds):
                    bytes(tensor.data[begin:end])
                    done += end - begin
                    progress(done / total)
                    seen.append(resident_file_bytes() - before)
            return super().load_weights(tensors)

    load_model(path, CopyingBackend())
    size = path.stat().st_size
    # The embedding and the output are half of it each: without the release all of it would stay.
    assert size > 16 << 20
    assert max(seen) < size // 8
