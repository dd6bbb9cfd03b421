"""Sound GGUF files of several shapes, and ways to damage them; deterministic for a seed."""

from __future__ import annotations

import random
import struct

import numpy as np

from rocmforge.gguf.metadata import SCALAR_DTYPES, ValueKind
from rocmforge.quant.formats import FORMATS
from tests.support import raw_gguf as raw
from tests.support.gguf_files import write_tiny_model

HOSTILE = (0, 1, 2, 3, 7, 8, 9, 13, 31, 32, 255, 4096, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32)
HOSTILE += (2**40, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1)


def seed_files(folder):
    """{shape: bytes} of files that the reader takes."""
    write_tiny_model(folder / "llama.gguf", n_layers=1, n_embd=32, n_ff=32, n_ctx=64)
    write_tiny_model(
        folder / "qwen3.gguf", "qwen3", n_layers=2, n_embd=32, n_ff=64, type="Q8_0", n_heads=1,
        n_kv_heads=1, with_tokenizer=False,
    )  # fmt: skip
    return {
        "llama": (folder / "llama.gguf").read_bytes(),
        "qwen3": (folder / "qwen3.gguf").read_bytes(),
        "kinds": _every_kind(2),
        "nested": _nested(),
        "tensors": _every_type(),
        "strings": _many_strings(),
        "empty": raw.gguf(),
    }


def _every_kind(version):
    entries = [
        raw.entry(f"k{kind}", kind, bytes(dtype.itemsize)) for kind, dtype in SCALAR_DTYPES.items()
    ]
    entries += [
        raw.entry(f"a{kind}", ValueKind.ARRAY, raw.array(kind, 3, bytes(3 * dtype.itemsize)))
        for kind, dtype in SCALAR_DTYPES.items()
    ]
    entries.append(raw.entry("text", ValueKind.STRING, raw.text("grüß")))
    return raw.gguf(entries, version=version)


def _nested():
    words = raw.array(ValueKind.STRING, 3, b"".join(map(raw.text, ["", "a", "日本"])))
    numbers = raw.array(ValueKind.INT16, 4, bytes(8))
    pair = raw.array(ValueKind.ARRAY, 2, words + numbers)
    value = raw.array(ValueKind.ARRAY, 3, pair + numbers + pair)
    tensors = [raw.tensor("t", [4, 4]), raw.tensor("u", [8], offset=64)]
    alignment = raw.u32_entry("general.alignment", 64)
    entries = [raw.entry("deep", ValueKind.ARRAY, value), alignment]
    return raw.gguf(entries, tensors, bytes(96), alignment=64)


def _every_type():
    tensors, data = [], b""
    for form in FORMATS.values():
        sizes = [form.block_size, 2, 1, 1][: 1 + len(tensors) % 4]
        rows = 2 if len(sizes) > 1 else 1
        tensors.append(raw.tensor(f"t.{form.name}", sizes, form.type, len(data)))
        data += bytes(rows * form.block_bytes)
        data += bytes(-len(data) % 32)
    return raw.gguf([raw.u32_entry("split.count", 1)], tensors, data)


def _many_strings():
    words = [f"word {i}" * (i % 4) for i in range(2000)]
    payload = raw.array(ValueKind.STRING, len(words), b"".join(map(raw.text, words)))
    return raw.gguf([raw.entry("words", ValueKind.ARRAY, payload), raw.u32_entry("end", 1)])


def fields(data):
    """[(offset, bytes)] of all counts, lengths, kinds, types, dimensions and offsets of a sound
    file: a reader of its own, of a few lines, that trusts the file."""
    found, at = [(4, 4), (8, 8), (16, 8)], 24

    def number(size):
        nonlocal at
        found.append((at, size))
        at += size
        return int.from_bytes(data[at - size : at], "little")

    def string():
        nonlocal at
        length = number(8)
        at += length

    def value(kind):
        nonlocal at
        if kind == ValueKind.STRING:
            string()
        elif kind == ValueKind.ARRAY:
            inner, count = number(4), number(8)
            for _ in range(count):
                value(inner)
        else:
            found.append((at, SCALAR_DTYPES[ValueKind(kind)].itemsize))
            at += found[-1][1]

    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    for _ in range(n_keys):
        string()
        value(number(4))
    for _ in range(n_tensors):
        string()
        for _ in range(number(4)):
            number(8)
        number(4), number(8)
    return found


def header_end(data):
    """Where the last field ends."""
    offset, size = fields(data)[-1]
    return offset + size


def flip_bits(rng, data, layout):
    """One to eight flipped bits, most of them in the header."""
    changed = bytearray(data)
    end = layout[-1][0] + layout[-1][1]
    for _ in range(rng.randint(1, 8)):
        limit = len(changed) if rng.random() < 0.1 else end
        changed[rng.randrange(limit)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng, data, layout):
    """Cut anywhere in the header, or somewhere in the data."""
    end = layout[-1][0] + layout[-1][1]
    return data[: rng.randrange(end if rng.random() < 0.7 else len(data))]


def set_fields(rng, data, layout):
    """One to three fields get hostile values."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        offset, size = rng.choice(layout)
        value = rng.choice(HOSTILE)
        if rng.random() < 0.3:
            value = int.from_bytes(changed[offset : offset + size], "little") + rng.choice((-1, 1))
        changed[offset : offset + size] = (value % 256**size).to_bytes(size, "little")
    return bytes(changed)


def swap_fields(rng, data, layout):
    """A field gets another's value: right in kind, wrong in place."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        (to, size), (source, source_size) = rng.choice(layout), rng.choice(layout)
        value = int.from_bytes(data[source : source + source_size], "little")
        changed[to : to + size] = (value % 256**size).to_bytes(size, "little")
    return bytes(changed)


def move_bytes(rng, data, layout):
    """A run of bytes is taken out, doubled, or put in at random."""
    end = layout[-1][0] + layout[-1][1]
    start, length = rng.randrange(end), rng.choice((1, 4, 8, 12, 40, 200))
    part = rng.choice((b"", data[start : start + length] * 2, rng.randbytes(length)))
    return data[:start] + part + data[start + length :]


def splice_files(rng, data, layout):
    """The head of the file with bytes from elsewhere in it as its continuation."""
    end = layout[-1][0] + layout[-1][1]
    return data[: rng.randrange(4, end)] + data[rng.randrange(end) :]


MUTATIONS = (flip_bits, truncate, set_fields, swap_fields, move_bytes, splice_files)


def mutants(data, mutation, count, seed):
    """`count` damaged versions of `data`."""
    layout = fields(data)
    for index in range(count):
        yield mutation(random.Random(f"{seed} {mutation.__name__} {index}"), data, layout)


def touch(file):
    """Use all of an opened file as the loader would; asserts what the reader promises."""
    for value in file.metadata.values():
        _touch_value(value)
    assert all(file.metadata.get(key) is not None for key in file.metadata)
    size = file.shard_paths[0].stat().st_size
    end = 0
    for info in sorted(file.tensors.values(), key=lambda info: info.start):
        assert end <= info.start
        end = info.start + info.n_bytes
        assert end <= size
        view = file.tensor_bytes(info.name)
        assert len(view) == info.n_bytes > 0
        assert np.frombuffer(view, np.uint8)[-1] >= 0


def _touch_value(value):
    if isinstance(value, list):
        for inner in value:
            _touch_value(inner)
    elif not isinstance(value, str | int | float | bool):
        assert len(list(value)) == len(value)
