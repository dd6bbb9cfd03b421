"""Small GGUF models with random weights, for every test that needs a model file.

The models are complete (llama, qwen2 or qwen3, with tokenizer and chat template) and their weights
are scaled so that logits are of order one and no operation can be left out unnoticed: attention
scores spread over several units, norm weights and biases differ from their neutral values.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from rocmforge.gguf.metadata import StringArray
from rocmforge.gguf.writer import GGUFWriter
from rocmforge.quant.encode import encode
from rocmforge.quant.formats import format_by_name

ARCHITECTURES = ("llama", "qwen2", "qwen3")
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Every part of a merge is a byte or an earlier merge; Ġ stands for the space.
MERGES = (
    "h e",
    "i n",
    "r e",
    "o n",
    "a n",
    "e r",
    "l l",
    "Ġ t",
    "Ġ a",
    "Ġt he",
    "l o",
    "he ll",
    "hell o",
    "Ġ w",
    "o r",
    "l d",
    "Ġw or",
    "Ġwor ld",
    "u s",
    "us er",
)
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5


def byte_characters() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(shifted)) for b in range(256)]


def tiny_vocabulary(n_vocab=None):
    """(tokens, types): 256 bytes, the merges, the specials, then unused tokens up to `n_vocab`."""
    tokens = byte_characters() + ["".join(merge.split()) for merge in MERGES]
    types = [_NORMAL] * len(tokens) + [_CONTROL] * len(SPECIAL_TOKENS)
    tokens += SPECIAL_TOKENS
    n_unused = 0 if n_vocab is None else n_vocab - len(tokens)
    assert n_unused >= 0, f"the vocabulary needs {len(tokens)} tokens"
    tokens += [f"[PAD{i}]" for i in range(n_unused)]
    return tokens, types + [_UNUSED] * n_unused


def tokenizer_metadata(n_vocab=None):
    """`tokenizer.*` of a byte-level BPE vocabulary with a ChatML template; `<|im_end|>` ends."""
    tokens, types = tiny_vocabulary(n_vocab)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def tiny_model_metadata(
    architecture="llama",
    *,
    n_layers=2,
    n_embd=64,
    n_heads=4,
    n_kv_heads=2,
    head_dim=None,
    n_ff=96,
    n_ctx=512,
    n_vocab=None,
    with_tokenizer=True,
):
    """All metadata of a model that `tiny_model_tensors` fits to."""
    if n_vocab is None:
        n_vocab = len(tiny_vocabulary()[0])
    head_dim = head_dim or n_embd // n_heads
    values = {
        "general.architecture": architecture,
        "general.name": f"tiny random {architecture}",
    }
    sizes = {
        "block_count": n_layers,
        "embedding_length": n_embd,
        "feed_forward_length": n_ff,
        "context_length": n_ctx,
        "vocab_size": n_vocab,
        "attention.head_count": n_heads,
        "attention.head_count_kv": n_kv_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": head_dim,
        "rope.freq_base": 10000.0,
    }
    values |= {f"{architecture}.{key}": value for key, value in sizes.items()}
    return values | (tokenizer_metadata(n_vocab) if with_tokenizer else {})


def tiny_model_tensors(metadata, *, seed=0, tied=False, rope_factors=False):
    """{name: float32 array in numpy order} of all tensors the metadata asks for."""
    architecture = metadata["general.architecture"]
    size = {k.removeprefix(architecture + "."): v for k, v in metadata.items()}
    rng = np.random.default_rng(seed)
    e, f, v = size["embedding_length"], size["feed_forward_length"], size["vocab_size"]
    d = size["attention.key_length"]
    q, k = size["attention.head_count"] * d, size["attention.head_count_kv"] * d

    def matrix(rows, cols, gain=1.0):
        return (rng.standard_normal((rows, cols)) * gain / np.sqrt(cols)).astype(np.float32)

    def vector(n, mean=0.0, spread=0.3):
        return (mean + spread * rng.standard_normal(n)).astype(np.float32)

    tensors = {"token_embd.weight": rng.standard_normal((v, e)).astype(np.float32)}
    for layer in range(size["block_count"]):
        block = {
            "attn_norm.weight": vector(e, 1.0),
            "attn_q.weight": matrix(q, e, 1.4),
            "attn_k.weight": matrix(k, e, 1.4),
            "attn_v.weight": matrix(k, e, 1.4),
            "attn_output.weight": matrix(e, q, 1.4),
            "ffn_norm.weight": vector(e, 1.0),
            "ffn_gate.weight": matrix(f, e, 1.4),
            "ffn_up.weight": matrix(f, e, 1.4),
            "ffn_down.weight": matrix(e, f, 1.4),
        }
        if architecture == "qwen2":
            block |= {"attn_q.bias": vector(q), "attn_k.bias": vector(k), "attn_v.bias": vector(k)}
        if architecture == "qwen3":
            block |= {"attn_q_norm.weight": vector(d, 1.4), "attn_k_norm.weight": vector(d, 1.4)}
        tensors |= {f"blk.{layer}.{name}": array for name, array in block.items()}
    tensors["output_norm.weight"] = vector(e, 1.0)
    if not tied:
        tensors["output.weight"] = matrix(v, e, 2.0)
    if rope_factors:
        n_pairs = size["rope.dimension_count"] // 2
        tensors["rope_freqs.weight"] = rng.uniform(1, 4, n_pairs).astype(np.float32)
    return tensors


def write_model(path, metadata, tensors, *, type="F32"):
    """Write a model file; matrices are encoded as `type`, vectors stay F32."""
    writer = GGUFWriter(path)
    for key, value in metadata.items():
        writer.add(key, value)
    for name, array in tensors.items():
        stored = format_by_name(type if array.ndim > 1 else "F32").type
        writer.add_tensor(name, array.shape, stored, encode(stored, array))
    writer.write()
    return Path(path)


def write_tiny_model(
    path,
    architecture="llama",
    *,
    n_layers=2,
    n_embd=64,
    n_heads=4,
    n_kv_heads=2,
    head_dim=None,
    n_ff=96,
    n_ctx=512,
    n_vocab=None,
    type="F32",
    seed=0,
    with_tokenizer=True,
    tied=False,
    rope_factors=False,
    metadata=None,
):
    """Write a complete random model and return its path.

    `metadata` replaces or adds keys (None removes one). Widths must be multiples of the block of
    `type`: 32 for Q8_0 and Q4_0, 256 for the K formats (n_embd=256, n_ff=256, n_heads · head_dim).
    """
    assert architecture in ARCHITECTURES, architecture
    values = tiny_model_metadata(
        architecture,
        n_layers=n_layers,
        n_embd=n_embd,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        n_ff=n_ff,
        n_ctx=n_ctx,
        n_vocab=n_vocab,
        with_tokenizer=with_tokenizer,
    )
    tensors = tiny_model_tensors(values, seed=seed, tied=tied, rope_factors=rope_factors)
    values |= metadata or {}
    values = {key: value for key, value in values.items() if value is not None}
    return write_model(path, values, tensors, type=type)


def string_array(values: list[bytes]) -> StringArray:
    """These strings as the reader gives them."""
    lengths = np.array([len(value) for value in values], np.int64)
    data = b"".join(struct.pack("<Q", len(value)) + value for value in values)
    return StringArray(data, np.cumsum(lengths + 8) - lengths, lengths)
