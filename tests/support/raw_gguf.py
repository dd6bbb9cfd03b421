"""GGUF bytes written field by field, so that tests can put anything into any field."""

from __future__ import annotations

import struct

from rocmforge.gguf.metadata import ValueKind


def text(value):
    """A length-prefixed string."""
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key, kind, payload):
    """One metadata entry; `payload` is the value's bytes."""
    return text(key) + struct.pack("<I", kind) + payload


def array(kind, count, payload=b""):
    """The payload of an array value."""
    return struct.pack("<IQ", kind, count) + payload


def u32_entry(key, value):
    """An entry with a UINT32 value."""
    return entry(key, ValueKind.UINT32, struct.pack("<I", value))


def tensor(name, sizes, type_=0, offset=0, n_dims=None):
    """One tensor description; `sizes` fastest first, as in the file."""
    n_dims = len(sizes) if n_dims is None else n_dims
    head = text(name) + struct.pack("<I", n_dims)
    return head + struct.pack(f"<{len(sizes)}QIQ", *sizes, type_, offset)


def gguf(entries=(), tensors=(), data=b"", *, version=3, n_keys=None, n_tensors=None, alignment=32):
    """A whole file; counts can be made to lie."""
    n_tensors = len(tensors) if n_tensors is None else n_tensors
    n_keys = len(entries) if n_keys is None else n_keys
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data
