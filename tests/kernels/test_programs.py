"""A recorded program: buffers that share memory, steps that must be refused, weights that lie."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rocmforge.backends.ops import KvGeometry, StepLimits, TensorSource
from rocmforge.backends.select import available_isas
from rocmforge.errors import (
    BackendInitializationFailed,
    InferenceFailed,
    InvalidCacheConfiguration,
    InvalidTensorShape,
)
from rocmforge.quant.formats import GGMLType
from tests.support.kernel_bench import KV, cpu, one_sequence, run, source, table
from tests.support.rounding import assert_same_bits, float_matrix

ISAS = pytest.mark.parametrize("isa", available_isas())
HEADS, KV_HEADS, DIM, WIDTH, FFN = 4, 2, 64, 256, 512
INV_FREQ = (10000.0 ** (-np.arange(DIM // 2) / (DIM // 2))).astype(np.float32)
CACHE = KvGeometry(
    n_layers=2, n_kv_heads=KV_HEADS, head_dim=DIM, n_blocks=8, block_tokens=16, kv_type="f16"
)
LIMITS = {"max_tokens": 4, "max_sequences": 2, "max_rows": 4, "max_blocks_per_sequence": 4}
FIELDS = [field.name for field in dataclasses.fields(one_sequence(1))]


def layer_weights():
    """Every kind of activation block: floats, blocks of 32 and of 256."""
    rng = np.random.default_rng(0)
    kv_width = KV_HEADS * DIM
    shapes = {
        "q": ("Q8_0", WIDTH, WIDTH),
        "k": ("Q4_K", kv_width, WIDTH),
        "v": ("F16", kv_width, WIDTH),
        "o": ("Q6_K", WIDTH, WIDTH),
        "gate": ("Q4_0", FFN, WIDTH),
        "up": ("Q5_K", FFN, WIDTH),
        "down": ("BF16", WIDTH, FFN),
    }
    matrices = [
        source(name, kind, (rng.normal(size=(rows, cols)) / 16).astype(np.float32))
        for name, (kind, rows, cols) in shapes.items()
    ]
    return [*matrices, float_matrix("norm", rng.normal(size=WIDTH) + 1)]


def layer(ops, w, x, number):
    normed = ops.rms_norm(x, w["norm"], 1e-5)
    q, k, v = (ops.matmul(normed, w[name]) for name in "qkv")
    q = ops.rope(q, HEADS, DIM, DIM, "neox", INV_FREQ, 1.0)
    k = ops.rope(k, KV_HEADS, DIM, DIM, "neox", INV_FREQ, 1.0)
    ops.kv_append(number, k, v)
    x = ops.add(x, ops.matmul(ops.attention(number, q, HEADS, 0.125, 0), w["o"]))
    normed = ops.rms_norm(x, w["norm"], 1e-5)
    hidden = ops.swiglu(ops.matmul(normed, w["gate"]), ops.matmul(normed, w["up"]))
    return ops.add(x, ops.matmul(hidden, w["down"]))


class OneByOne:
    """`Ops` where each operation is a program of its own, fed from tables: nothing shares memory.

    In place operations return a new handle, as their programs copy the input.
    """

    def __init__(self, isa, weights, step):
        self.isa, self.step = isa, step
        self.weights = {tensor.name: tensor for tensor in weights}

    def program(self, forward, *arrays, names=()):
        inputs = [float_matrix(f"input{i}", array) for i, array in enumerate(arrays)]
        used = [self.weights[name] for name in names]

        def whole(ops, w, x):
            return forward(ops, w, x, *(ops.embed(w[t.name]) for t in inputs[1:]))

        tensors = [dataclasses.replace(inputs[0], name="x"), *inputs[1:], *used]
        return run(cpu(self.isa), tensors, whole, [self.step], CACHE)[0]

    def rms_norm(self, x, weight, eps):
        return self.program(lambda o, w, x: o.rms_norm(x, w[weight], eps), x, names=[weight])

    def matmul(self, x, weight):
        return self.program(lambda o, w, x: o.matmul(x, w[weight]), x, names=[weight])

    def rope(self, x, *settings):
        return self.program(lambda o, w, x: o.rope(x, *settings), x)

    def add(self, x, y):
        return self.program(lambda o, w, x, y: o.add(x, y), x, y)

    def swiglu(self, x, y):
        return self.program(lambda o, w, x, y: o.swiglu(x, y), x, y)

    def kv_append(self, layer, k, v):
        self.kept = (k, v)

    def attention(self, layer, q, n_heads, scale, window):
        def forward(ops, w, q, k, v):
            ops.kv_append(layer, k, v)
            return ops.attention(layer, q, n_heads, scale, window)

        return self.program(forward, q, *self.kept)


@ISAS
def test_buffers_that_share_memory_do_not_disturb_each_other(isa):
    x = np.random.default_rng(1).normal(size=(20, WIDTH)).astype(np.float32)
    weights, step = layer_weights(), one_sequence(20)

    def two_layers(ops, w, x):
        return layer(ops, w, layer(ops, w, x, 0), 1)

    (together,) = run(cpu(isa), [table(x), *weights], two_layers, [step], CACHE)
    names = {tensor.name: tensor.name for tensor in weights}
    apart = two_layers(OneByOne(isa, weights, step), names, x)
    assert_same_bits(together, apart)


def small_program(**changes):
    backend = cpu()
    refs = backend.load_weights([table(np.eye(4, 16))])

    def forward(ops):
        ops.output(ops.select_rows(ops.embed(refs["x"])))

    return backend.create_program(forward, KV, StepLimits(**{**LIMITS, **changes}))


def refused(program, step):
    with pytest.raises(InferenceFailed, match="the step cannot be run"):
        program.run(step)
    # And it runs on.
    assert np.array_equal(program.run(one_sequence(4)), np.eye(4, 16, dtype=np.float32))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("dtype", ["i8", "u4", "i2", "u1", "f4", "f8", ">i4", "O"])
def test_arrays_of_another_type_are_refused(field, dtype):
    step = one_sequence(4)
    refused(
        small_program(), dataclasses.replace(step, **{field: getattr(step, field).astype(dtype)})
    )


def test_a_wide_id_is_not_wrapped_into_a_valid_one():
    ids = np.array([0, 1, 2, 2**32 + 3], np.int64)
    refused(small_program(), dataclasses.replace(one_sequence(4), token_ids=ids))


@pytest.mark.parametrize("field", FIELDS)
def test_arrays_of_another_shape_are_refused(field):
    step = one_sequence(4)
    array = getattr(step, field)
    for wrong in (array[None], array.reshape(-1)[:0], None, array.tolist()):
        if wrong is not None and np.shape(wrong) == array.shape and not isinstance(wrong, list):
            continue  # empty already
        if field == "logits_rows" and np.shape(wrong) == (0,):
            continue  # no rows wanted is a step like any other
        refused(small_program(), dataclasses.replace(step, **{field: wrong}))


def test_columns_of_a_wider_array_are_refused():
    wide = np.zeros((4, 2), np.int32)
    wide[:, 0] = range(4)
    refused(small_program(), dataclasses.replace(one_sequence(4), token_ids=wide[:, 0]))


@pytest.mark.parametrize("rows", [[1, 0], [2, 2], [0, 1, 1], [0, 1, 2, 3, 3]])
def test_rows_that_do_not_ascend_are_refused(rows):
    refused(small_program(), one_sequence(4, rows=rows))


def test_more_than_the_limits_is_refused():
    for rows in ([], None):
        with pytest.raises(InferenceFailed, match="too many tokens"):
            small_program().run(one_sequence(5, rows=rows))
    program = small_program(max_rows=2)
    assert program.run(one_sequence(4, rows=[1, 3])).shape == (2, 16)
    with pytest.raises(InferenceFailed, match="too many logits rows"):
        program.run(one_sequence(4))


def test_more_sequences_than_the_limit_are_refused():
    step = dataclasses.replace(
        one_sequence(2),
        positions=np.zeros(2, np.int32),
        query_start=np.arange(3, dtype=np.int32),
        context_len=np.ones(2, np.int32),
        block_tables=np.array([[0], [1]], np.int32),
    )
    assert small_program(max_sequences=2).run(step).shape == (2, 16)
    with pytest.raises(InferenceFailed, match="too many sequences"):
        small_program(max_sequences=1).run(step)


def test_a_closed_program_does_not_run():
    program = small_program()
    program.close()
    with pytest.raises(InferenceFailed, match="closed"):
        program.run(one_sequence(1))


@pytest.mark.parametrize("type_name", ["F32", "F16", "Q8_0", "Q4_K", "Q5_0", "IQ4_NL"])
@pytest.mark.parametrize("off", [-1, 1, -32])
def test_weights_of_another_size_are_refused(type_name, off):
    type_ = GGMLType[type_name]
    right = {"F32": 4, "F16": 2, "Q8_0": 34 / 32, "Q4_K": 144 / 256}.get(type_name)
    n_bytes = int(3 * 256 * (right or (22 / 32 if type_name == "Q5_0" else 18 / 32)))
    tensor = TensorSource("w", type_, (3, 256), memoryview(bytes(n_bytes + off)))
    with pytest.raises(InvalidTensorShape, match="size"):
        cpu().load_weights([tensor])
    cpu().load_weights([dataclasses.replace(tensor, data=memoryview(bytes(n_bytes)))])


def test_rows_that_do_not_fit_the_weights_are_refused():
    backend = cpu()
    refs = backend.load_weights([table(np.eye(4, 64)), float_matrix("w", np.ones((3, 32)))])
    with pytest.raises(InvalidTensorShape, match="takes rows of 32"):
        backend.create_program(
            lambda ops: ops.matmul(ops.embed(refs["x"]), refs["w"]), KV, StepLimits(**LIMITS)
        )


def test_a_kv_type_without_kernels_is_refused():
    backend = cpu()
    refs = backend.load_weights([table(np.eye(4, 16))])
    with pytest.raises(InvalidCacheConfiguration, match="q8_0"):
        backend.create_program(
            lambda ops: ops.output(ops.select_rows(ops.embed(refs["x"]))),
            dataclasses.replace(KV, kv_type="q8_0"),
            StepLimits(**LIMITS),
        )


def test_an_isa_that_this_machine_lacks_is_refused():
    with pytest.raises(BackendInitializationFailed, match="scalar"):
        cpu("neon")
