"""Write a checkpoint as GGUF: matrices in Q8_0, norms in F32, with tokenizer and chat template.

python -m training.export --run training/runs/main --out rocmforge/embedded/rocmforge-tiny.gguf
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer

from training.corpus import chat_template
from training.tiny_llama import ModelShape
from training.tokenizer import (
    CONTROL_TOKENS,
    END_OF_TEXT,
    TURN_END,
    USER_DEFINED_TOKENS,
    load_tokenizer,
)

MODEL_NAME = "ROCmForge Tiny"
DEFAULT_OUT = Path("rocmforge/embedded/rocmforge-tiny.gguf")
MAX_BYTES = 4_000_000


def write_shape(writer: GGUFWriter, shape: ModelShape) -> None:
    """The llama.* keys."""
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layer_count)
    writer.add_feed_forward_length(shape.ffn_width)
    writer.add_head_count(shape.head_count)
    writer.add_head_count_kv(shape.kv_head_count)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)


def write_general(writer: GGUFWriter) -> None:
    """Who and what the model is."""
    writer.add_name(MODEL_NAME)
    writer.add_author("The ROCmForge project")
    writer.add_description("A very small chat model for trying and testing ROCmForge.")
    writer.add_license("Apache-2.0")
    writer.add_size_label("3.5M")
    writer.add_languages(["en"])
    writer.add_quantization_version(2)


def token_type(text: str) -> TokenType:
    """How an engine has to treat a token."""
    if text in CONTROL_TOKENS:
        return TokenType.CONTROL
    if text in USER_DEFINED_TOKENS:
        return TokenType.USER_DEFINED
    return TokenType.NORMAL


def write_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    """The tokenizer.* keys."""
    tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([token_type(text) for text in tokens])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.token_to_id(TURN_END))
    writer.add_eot_token_id(tokenizer.token_to_id(TURN_END))
    writer.add_pad_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(chat_template())


def write_tensors(writer: GGUFWriter, state: dict[str, torch.Tensor]) -> None:
    """Matrices in Q8_0, vectors in F32; the output matrix is token_embd."""
    for name, tensor in state.items():
        values = tensor.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            packed = quantize(values, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)


def as_shipped(values: np.ndarray) -> np.ndarray:
    """What a matrix is after Q8_0."""
    kind = GGMLQuantizationType.Q8_0
    return dequantize(quantize(values, kind), kind)


def export(run: Path, out: Path) -> str:
    """Write the file and return its sha256."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    writer = GGUFWriter(out, "llama")
    write_general(writer)
    write_shape(writer, ModelShape(**state["shape"]))
    write_tokenizer(writer, load_tokenizer(run / "tokenizer.json"))
    write_tensors(writer, state["model"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if out.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{out} has {out.stat().st_size} bytes, more than {MAX_BYTES}")
    return hashlib.sha256(out.read_bytes()).hexdigest()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Write a checkpoint as GGUF.")
    parser.add_argument("--run", type=Path, default=Path("training/runs/main"))
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    digest = export(arguments.run, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
