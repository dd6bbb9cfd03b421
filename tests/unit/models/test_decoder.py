"""The decoder reads exactly the tensors it says it needs, in the order of a transformer."""

from __future__ import annotations

import numpy as np
import pytest

from rocmforge.backends.ops import WeightRef
from rocmforge.models.decoder import Decoder, required_tensors
from tests.support.model_specs import spec_of

EVERY_BIAS = ("blk.0.attn_q.bias", "blk.0.attn_output.bias", "blk.0.ffn_up.bias")
SPECS = {
    "llama": spec_of(),
    "tied": spec_of(names=()),
    "biases": spec_of(names=(*EVERY_BIAS, "output.weight")),
    "qwen2": spec_of("qwen2"),
    "qwen3": spec_of("qwen3"),
}


class RecordingOps:
    """Notes each op and the weights it read; handles are widths, so that shapes are checked."""

    def __init__(self):
        self.ops = []
        self.read = set()

    def note(self, op, *weights):
        self.ops.append(op)
        self.read |= {weight.name for weight in weights if weight is not None}

    def embed(self, table):
        self.note("embed", table)
        return table.cols

    def rms_norm(self, x, weight, eps):
        self.note("rms_norm", weight)
        assert (x, eps) == (weight.cols, 1e-5)
        return x

    def head_rms_norm(self, x, weight, eps, n_heads):
        self.note("head_rms_norm", weight)
        assert x == n_heads * weight.cols
        return x

    def matmul(self, x, weight, bias=None):
        self.note("matmul", weight, bias)
        assert x == weight.cols
        assert bias is None or bias.cols == weight.rows
        return weight.rows

    def add(self, x, y):
        self.note("add")
        assert x == y
        return x

    def rope(self, x, n_heads, head_dim, rope_dim, kind, inv_freq, magnitude):
        self.note(f"rope {kind}")
        assert x == n_heads * head_dim
        assert len(inv_freq) == rope_dim // 2
        assert magnitude == 1.5
        return x

    def kv_append(self, layer, k, v):
        self.note(f"kv_append {layer}")
        assert k == v

    def attention(self, layer, q, n_heads, scale, window):
        self.note(f"attention {layer}")
        assert (scale, window) == (16**-0.5, 0)
        return q

    def swiglu(self, gate, up):
        self.note("swiglu")
        assert gate == up
        return gate

    def select_rows(self, x):
        self.note("select_rows")
        return x

    def output(self, x):
        self.note("output")
        assert x == 320


def record(spec):
    weights = {}
    for index, (name, shape) in enumerate(required_tensors(spec).items()):
        rows, cols = shape if len(shape) == 2 else (1, *shape)
        weights[name] = WeightRef(index, name, rows, cols, "F32")
    ops = RecordingOps()
    Decoder(spec, weights, np.ones(spec.rope_dim // 2, np.float32), 1.5).forward(ops)
    return ops


@pytest.mark.parametrize("name", SPECS)
def test_every_required_tensor_is_read_and_no_other(name):
    assert record(SPECS[name]).read == set(required_tensors(SPECS[name]))


def test_the_order_of_operations():
    def layer(i, last):
        return [
            *("rms_norm", "matmul", "matmul", "matmul", "rope norm", "rope norm"),
            *(f"kv_append {i}", f"attention {i}", "matmul"),
            # After the last attention only the rows whose logits are wanted are carried on.
            *(["select_rows"] * 2 if last else []),
            *("add", "rms_norm", "matmul", "matmul", "swiglu", "matmul", "add"),
        ]

    expected = ["embed", *layer(0, False), *layer(1, True), "rms_norm", "matmul", "output"]
    assert record(SPECS["llama"]).ops == expected


def test_norms_of_heads_come_before_rope():
    ops = record(SPECS["qwen3"]).ops
    at = ops.index("head_rms_norm")
    assert ops[at : at + 4] == ["head_rms_norm", "head_rms_norm", "rope neox", "rope neox"]


def test_required_shapes():
    tensors = required_tensors(spec_of("qwen3"))
    assert len(tensors) == 2 * 11 + 3
    assert tensors["token_embd.weight"] == tensors["output.weight"] == (320, 64)
    layer = {n.removeprefix("blk.1."): s for n, s in tensors.items() if n.startswith("blk.1.")}
    assert layer == {
        "attn_norm.weight": (64,),
        "attn_q.weight": (64, 64),
        "attn_k.weight": (32, 64),
        "attn_v.weight": (32, 64),
        "attn_output.weight": (64, 64),
        "attn_q_norm.weight": (16,),
        "attn_k_norm.weight": (16,),
        "ffn_norm.weight": (64,),
        "ffn_gate.weight": (96, 64),
        "ffn_up.weight": (96, 64),
        "ffn_down.weight": (64, 96),
    }


def test_required_biases():
    tensors = required_tensors(SPECS["biases"])
    biases = {n.removeprefix("blk.0."): s for n, s in tensors.items() if n.startswith("blk.0.")}
    assert {name: shape for name, shape in biases.items() if name.endswith("bias")} == {
        "attn_q.bias": (64,),
        "attn_k.bias": (32,),
        "attn_v.bias": (32,),
        "attn_output.bias": (64,),
        "ffn_gate.bias": (96,),
        "ffn_up.bias": (96,),
        "ffn_down.bias": (64,),
    }
