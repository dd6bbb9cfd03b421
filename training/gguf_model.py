"""Reads the exported GGUF file back into the torch module: what is evaluated is what ships."""

from __future__ import annotations

from pathlib import Path

import torch
from gguf import GGUFReader
from gguf.quants import dequantize

from training.tiny_llama import ModelShape, TinyLlama


def _number(reader: GGUFReader, key: str) -> int | float:
    return reader.get_field(key).contents()


def load_gguf(path: Path) -> TinyLlama:
    """The module with the file's decoded weights."""
    reader = GGUFReader(path)
    shape = ModelShape(
        vocab_size=int(_number(reader, "llama.vocab_size")),
        width=int(_number(reader, "llama.embedding_length")),
        layer_count=int(_number(reader, "llama.block_count")),
        head_count=int(_number(reader, "llama.attention.head_count")),
        kv_head_count=int(_number(reader, "llama.attention.head_count_kv")),
        ffn_width=int(_number(reader, "llama.feed_forward_length")),
        context_length=int(_number(reader, "llama.context_length")),
        rope_theta=float(_number(reader, "llama.rope.freq_base")),
        norm_epsilon=float(_number(reader, "llama.attention.layer_norm_rms_epsilon")),
    )
    model = TinyLlama(shape)
    state = {
        tensor.name: torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        for tensor in reader.tensors
    }
    model.load_state_dict(state)
    return model.eval()
