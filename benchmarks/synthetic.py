"""GGUF models of well-known shapes with random weights, for llama.cpp and ROCmForge alike.

    python benchmarks/synthetic.py FOLDER [--shape 1b,0.5b] [--types Q4_0,Q8_0]

Speed depends on shapes and types, not on what a model has learnt, so nothing is downloaded. Blocks
are random bytes with scales put in: every field takes its values, and a matrix of C columns has
values of about 1/sqrt(C), so that activations stay of order one.

Which type a tensor gets follows llama.cpp's quantizer. token_embd.weight is also the head and gets
Q6_K, or Q8_0 in files of Q8_0 and MXFP4 and where its rows are no multiple of 256. Q4_K_M stores
attn_v and ffn_down of half of the layers as Q6_K. Rows that are no multiple of a type's block fall
back: Q4_K to Q5_0, Q5_K to Q5_1, Q6_K to Q8_0, IQ4_XS to IQ4_NL; in the 0.5b shape these are all
but those of ffn_down. Unlike llama.cpp's, Q5_K, IQ4_XS and MXFP4 files have all matrices of the
layers in one type (it would store some of IQ4_XS as Q5_K, and only experts as MXFP4).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rocmforge.gguf.writer import GGUFWriter
from rocmforge.quant.formats import FORMATS, GGMLType, row_bytes
from rocmforge.quant.reference import decode

Bytes = npt.NDArray[np.uint8]

# What a user asks for → the type of most matrices.
FILE_TYPES = {
    "Q4_0": GGMLType.Q4_0,
    "Q4_K_M": GGMLType.Q4_K,
    "Q8_0": GGMLType.Q8_0,
    "F16": GGMLType.F16,
    "BF16": GGMLType.BF16,
    "Q5_K": GGMLType.Q5_K,
    "Q6_K": GGMLType.Q6_K,
    "IQ4_XS": GGMLType.IQ4_XS,
    "MXFP4": GGMLType.MXFP4,
}
_FALLBACKS = {
    GGMLType.Q4_K: GGMLType.Q5_0,
    GGMLType.Q5_K: GGMLType.Q5_1,
    GGMLType.Q6_K: GGMLType.Q8_0,
    GGMLType.IQ4_XS: GGMLType.IQ4_NL,
}
# Where a block has its float16 scales, and how large each is beside the first: the second makes the
# values' mean zero, as the quantised numbers have no sign.
_SCALES: dict[GGMLType, tuple[tuple[int, float], ...]] = {
    GGMLType.Q4_0: ((0, 1.0),),
    GGMLType.Q5_0: ((0, 1.0),),
    GGMLType.Q5_1: ((0, 1.0), (2, -15.5)),
    GGMLType.Q8_0: ((0, 1.0),),
    GGMLType.Q4_K: ((0, 1.0), (2, 7.5)),
    GGMLType.Q5_K: ((0, 1.0), (2, 15.5)),
    GGMLType.Q6_K: ((208, 1.0),),
    GGMLType.IQ4_NL: ((0, 1.0),),
    GGMLType.IQ4_XS: ((0, 1.0),),
}
# Their numbers reach further below zero than above: half of the blocks turn them over, as encoders
# do.
_LOPSIDED = (GGMLType.Q4_0, GGMLType.Q5_0, GGMLType.IQ4_NL)
# Sign and mantissa of a 16-bit float; its exponent is put in.
_SIGN_AND_MANTISSA = {GGMLType.F16: (0x83FF, 10, 15), GGMLType.BF16: (0x807F, 7, 127)}
_N_SAMPLED_BLOCKS = 512
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
# A change of what is written needs another number: files of the same name are used again.
_REVISION = 2


@dataclass(frozen=True)
class Shape:
    """A decoder with tied embeddings; letters as in the legend of models/spec.py."""

    architecture: str
    pre_tokenizer: str
    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_vocab: int
    rope_base: float
    n_ctx: int

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """[rows, columns] of one layer's matrices."""
        e, f = self.n_embd, self.n_ff
        q, k = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return {
            "attn_q": (q, e),
            "attn_k": (k, e),
            "attn_v": (k, e),
            "attn_output": (e, q),
            "ffn_gate": (f, e),
            "ffn_up": (f, e),
            "ffn_down": (e, f),
        }

    @property
    def has_biases(self) -> bool:
        """Whether q, k and v have them."""
        return self.architecture == "qwen2"


SHAPES = {
    # Llama-3.2-1B and Qwen2.5-0.5B.
    "1b": Shape("llama", "llama-bpe", 16, 2048, 8192, 32, 8, 64, 128256, 500_000.0, 131072),
    "0.5b": Shape("qwen2", "qwen2", 24, 896, 4864, 14, 2, 64, 151936, 1_000_000.0, 32768),
    # For tests: rows of whole K-quant blocks, and rows that need the fallbacks.
    "tiny": Shape("llama", "llama-bpe", 2, 256, 512, 4, 2, 64, 512, 500_000.0, 1024),
    "tiny-qwen2": Shape("qwen2", "qwen2", 2, 192, 512, 3, 1, 64, 512, 1_000_000.0, 1024),
}


def tensor_types(shape: Shape, file_type: str) -> dict[str, GGMLType]:
    """The type of each matrix, in the file's order."""
    most = FILE_TYPES[file_type]
    types = {"token_embd.weight": _fitting(_head_type(shape, most), shape.n_embd)}
    for layer in range(shape.n_layers):
        for name, (_, cols) in shape.matrices.items():
            wanted = most
            if file_type == "Q4_K_M" and name in ("attn_v", "ffn_down"):
                wanted = GGMLType.Q6_K if _gets_more_bits(layer, shape.n_layers) else most
            types[f"blk.{layer}.{name}.weight"] = _fitting(wanted, cols)
    return types


def _head_type(shape: Shape, most: GGMLType) -> GGMLType:
    if most in _SIGN_AND_MANTISSA:
        return most
    if most in (GGMLType.Q8_0, GGMLType.MXFP4) or shape.n_embd % FORMATS[most].block_size:
        return GGMLType.Q8_0
    return GGMLType.Q6_K


def _gets_more_bits(layer: int, n_layers: int) -> bool:
    """The first and last eighth, and every third layer between them."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def _fitting(type_: GGMLType, cols: int) -> GGMLType:
    return _FALLBACKS[type_] if cols % FORMATS[type_].block_size else type_


def random_matrix(rng: np.random.Generator, type_: GGMLType, rows: int, cols: int) -> Bytes:
    """Bytes of a matrix with values of about 1/sqrt(cols)."""
    rms = cols**-0.5
    raw = _random_bytes(rng, rows * row_bytes(type_, cols))
    if type_ in _SIGN_AND_MANTISSA:
        mask, mantissa_bits, bias = _SIGN_AND_MANTISSA[type_]
        # Values are between 2^e and 2^(e+1): 1.53 · 2^e in the mean of their squares.
        exponent = round(np.log2(rms / 1.53)) + bias
        words = raw.view(np.uint16)
        words &= np.uint16(mask)
        words |= np.uint16(exponent << mantissa_bits)
        return raw
    blocks = raw.reshape(-1, FORMATS[type_].block_bytes)
    if type_ is GGMLType.Q8_0:
        # No encoder makes -128.
        np.maximum(blocks.view(np.int8), -127, out=blocks.view(np.int8))
    _put_scales(blocks, type_, rms)
    return raw


def _random_bytes(rng: np.random.Generator, n_bytes: int) -> Bytes:
    words = rng.integers(0, 2**64, -(-n_bytes // 8), dtype=np.uint64)
    return words.view(np.uint8)[:n_bytes]


def _put_scales(blocks: Bytes, type_: GGMLType, rms: float) -> None:
    """Set the scales so that values have that root mean square, or near it for MXFP4, whose scales
    are powers of two."""
    sample = blocks[:_N_SAMPLED_BLOCKS].copy()
    _set_scale(sample, type_, 1.0)
    unit = decode(type_, sample.reshape(-1), len(sample) * FORMATS[type_].block_size)
    _set_scale(blocks, type_, rms / float(np.sqrt(np.square(unit).mean())))


def _set_scale(blocks: Bytes, type_: GGMLType, scale: float) -> None:
    if type_ is GGMLType.MXFP4:
        blocks[:, 0] = 127 + round(np.log2(scale))
        return
    for start, factor in _SCALES[type_]:
        value = np.array([scale * factor], "<f2").view(np.uint8)
        blocks[:, start : start + 2] = value
    if type_ in _LOPSIDED:
        blocks[1::2, 1] ^= np.uint8(0x80)


def write_model(path: Path, shape: Shape, file_type: str, seed: int = 0) -> None:
    """Write the model; about a second per 300 MB."""
    rng = np.random.Generator(np.random.SFC64(seed))
    writer = GGUFWriter(path, shape.architecture)
    for key, value in (_metadata(shape) | _tokenizer(shape)).items():
        writer.add(key, value)
    types = tensor_types(shape, file_type)
    sizes = {"token_embd.weight": (shape.n_vocab, shape.n_embd)}
    for layer in range(shape.n_layers):
        sizes |= {f"blk.{layer}.{name}.weight": size for name, size in shape.matrices.items()}
    for name, (rows, cols) in sizes.items():
        matrix = random_matrix(rng, types[name], rows, cols)
        writer.add_tensor(name, (rows, cols), types[name], matrix)
    for name, vector in _vectors(rng, shape).items():
        writer.add_tensor(name, vector.shape, GGMLType.F32, vector)
    writer.write()


def _vectors(rng: np.random.Generator, shape: Shape) -> dict[str, npt.NDArray[np.float32]]:
    """Norms near one, biases near zero."""

    def near(center: float, size: int) -> npt.NDArray[np.float32]:
        return (center + 0.1 * rng.standard_normal(size)).astype(np.float32)

    vectors = {"output_norm.weight": near(1.0, shape.n_embd)}
    for layer in range(shape.n_layers):
        for name in ("attn_norm", "ffn_norm"):
            vectors[f"blk.{layer}.{name}.weight"] = near(1.0, shape.n_embd)
        if shape.has_biases:
            for name in ("attn_q", "attn_k", "attn_v"):
                vectors[f"blk.{layer}.{name}.bias"] = near(0.0, shape.matrices[name][0])
    return vectors


def _metadata(shape: Shape) -> dict[str, object]:
    sizes = {
        "block_count": shape.n_layers,
        "context_length": shape.n_ctx,
        "embedding_length": shape.n_embd,
        "feed_forward_length": shape.n_ff,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": shape.head_dim,
        "rope.freq_base": shape.rope_base,
        "vocab_size": shape.n_vocab,
    }
    return {f"{shape.architecture}.{key}": value for key, value in sizes.items()}


def _tokenizer(shape: Shape) -> dict[str, object]:
    """A vocabulary of all bytes, one merge and tokens that nothing makes."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = iter(range(256, 512))
    tokens = [chr(byte if byte in printable else next(shifted)) for byte in range(256)]
    tokens += ["he", "<|begin|>", "<|end|>"]
    bos, eos = tokens.index("<|begin|>"), tokens.index("<|end|>")
    n_unused = shape.n_vocab - len(tokens)
    types = np.full(shape.n_vocab, _NORMAL, np.int32)
    types[[bos, eos]] = _CONTROL
    types[len(tokens) :] = _UNUSED
    tokens += [f"[unused{i}]" for i in range(n_unused)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": shape.pre_tokenizer,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": bos,
        "tokenizer.ggml.eos_token_id": eos,
        "tokenizer.ggml.add_bos_token": False,
    }


def model_file(cache: Path, shape_name: str, file_type: str) -> Path:
    """The file of that shape and type in the cache folder, written when it is not there."""
    path = cache / f"synthetic-{shape_name}-{file_type}-r{_REVISION}.gguf"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        write_model(path, SHAPES[shape_name], file_type)
    return path


def main() -> None:
    """Write files and say how long it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", default="1b", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--types", default=",".join(FILE_TYPES))
    options = parser.parse_args()
    for shape in options.shape.split(","):
        for file_type in options.types.split(","):
            started = time.perf_counter()
            path = model_file(options.folder, shape, file_type)
            seconds = time.perf_counter() - started
            print(f"{path}  {path.stat().st_size / 1e6:,.0f} MB  {seconds:.1f} s")


if __name__ == "__main__":
    main()
