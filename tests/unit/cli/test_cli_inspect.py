"""`rocmforge inspect` and `rocmforge models`: what is in a file, and which models there are."""

from __future__ import annotations

import json

import pytest

from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.errors import InvalidModelFile
from tests.support.gguf_files import write_tiny_model
from tests.support.hub_server import HubServer


def test_inspect_counts_what_the_file_has(invoke, tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", n_embd=32, n_ff=64, n_layers=1, type="Q8_0")
    facts = json.loads(invoke("inspect", path, "--json").stdout)
    assert facts["files"] == [str(path)]
    assert facts["version"] == 3
    assert facts["n_tensors"] == len(facts["tensors"]) == 12
    assert facts["types"] == {"F32": 3, "Q8_0": 9}
    tensors = {tensor["name"]: tensor for tensor in facts["tensors"]}
    gate = tensors["blk.0.ffn_gate.weight"]
    # Q8_0: a float16 scale and 32 bytes for 32 values.
    assert gate == {
        "name": "blk.0.ffn_gate.weight",
        "type": "Q8_0",
        "shape": [64, 32],
        "bytes": 64 * 34,
    }
    assert facts["tensor_bytes"] == sum(tensor["bytes"] for tensor in facts["tensors"])
    metadata = facts["metadata"]
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.block_count"] == 1
    tokens = metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == 7
    assert tokens[-1].startswith("… (")


def test_inspect_prints_tables(invoke, tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", metadata={"general.name": "a\x1b[2J [bold]b"})
    plain = invoke("inspect", path).stdout
    assert "llama.block_count" in plain
    assert "blk.0.attn_q.weight" not in plain
    # Neither the terminal nor the table's own markup is steered by what a file says.
    assert "\x1b" not in plain
    assert "[bold]b" in plain
    listed = invoke("inspect", path, "--tensors").stdout
    assert "blk.0.attn_q.weight" in listed
    assert "64x64" in listed


def test_inspect_without_model_shows_the_default_one(invoke, tiny_path, monkeypatch):
    facts = json.loads(invoke("inspect", "--json").stdout)
    assert facts["files"] == [str(EMBEDDED_MODEL_PATH)]
    monkeypatch.setenv("ROCMFORGE_MODEL", str(tiny_path))
    assert json.loads(invoke("inspect", "--json").stdout)["files"] == [str(tiny_path)]


def test_inspect_refuses_a_damaged_file(invoke, tmp_path, tiny_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_path.read_bytes()[:5000])
    with pytest.raises(InvalidModelFile):
        invoke("inspect", cut)


def models(done):
    assert (done.returncode, done.stderr) == (0, "")
    return {row["name"]: (row["source"], row["bytes"]) for row in json.loads(done.stdout)}


def test_models_lists_embedded_aliases_and_hub(rocmforge, tmp_path, tiny_path):
    config = tmp_path / "rocmforge.toml"
    config.write_text(
        f'[aliases]\nmine = "{tiny_path}"\nfar = "hf:someone/tiny"\ngone = "/nowhere.gguf"\n'
    )
    size = tiny_path.stat().st_size
    with HubServer("someone/tiny", {"tiny.gguf": tiny_path.read_bytes()}) as hub:
        env = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "ROCMFORGE_CONFIG": str(config),
        }
        before = models(rocmforge("models", "--json", env=env))
        assert before == {
            "embedded": (str(EMBEDDED_MODEL_PATH), EMBEDDED_MODEL_PATH.stat().st_size),
            "mine": (str(tiny_path), size),
            "far": ("hf:someone/tiny", None),
            "gone": ("/nowhere.gguf", None),
        }
        # The alias of a hub model downloads it, and from then on it is listed.
        done = rocmforge("generate", "far", "hello", "-n", "3", env=env)
        assert done.returncode == 0, done.stderr
    after = models(rocmforge("models", "--json", env=env))
    (hub_name,) = after.keys() - before.keys()
    assert hub_name == "hf:someone/tiny:tiny.gguf"
    assert after[hub_name][1] == size
    # Without the hub, too.
    env["HF_HUB_OFFLINE"] = "1"
    assert rocmforge("generate", hub_name, "hello", "-n", "3", env=env).returncode == 0


def test_models_prints_a_table(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr("rocmforge.cli.models.cached_hub_models", list)
    text = invoke("models").stdout
    assert "embedded" in text
    assert "MB" in text
