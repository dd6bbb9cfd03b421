"""Copies a model and gives it a vocabulary with as many merges as those of large public models.

    python benchmarks/large_vocabulary.py MODEL.gguf OUT.gguf [--merges 280000]

Made-up files have few merges, and reading merges is most of what a tokenizer costs at the start of
a server. The words are random, but all the rest is as in a byte-level BPE file: 256 characters that
stand for the bytes, tokens that are each a merge of two others, merges of several ways to one
token, control tokens at the end. The model's weights are copied as they are.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from rocmforge.gguf.reader import GGUFFile
from rocmforge.gguf.writer import GGUFWriter
from rocmforge.text.vocabulary import PREFIX

_LETTERS = "etaoinsrhldcumfpgwybvkxqzjĠ"
_CONTROLS = ("<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_FOUR_LETTERS_SHARE = 0.65
_N_DRAWN = 4096
_MAX_TOKEN_CHARS = 12
_NORMAL, _CONTROL = 1, 3


def byte_characters() -> list[str]:
    """The 256 characters of byte-level vocabularies."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    shifted = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


def made_up_tokens(n_tokens: int) -> list[str]:
    """That many texts: all bytes, all pairs and triples of letters, pairs of pairs, and longer ones
    that join two others at random."""
    pairs, triples = (["".join(p) for p in product(_LETTERS, repeat=n)] for n in (2, 3))
    tokens = dict.fromkeys(byte_characters() + pairs + triples)
    rng, known = np.random.default_rng(0), pairs + triples
    while len(tokens) < n_tokens:
        # Of four letters, every cut leaves two tokens: these have several merges each.
        parts = pairs if len(tokens) < _FOUR_LETTERS_SHARE * n_tokens else known
        for left, right in rng.integers(0, len(parts), (_N_DRAWN, 2)):
            text = parts[left] + parts[right]
            if len(text) <= _MAX_TOKEN_CHARS and text not in tokens:
                tokens[text] = None
                known.append(text)
    return list(tokens)[:n_tokens]


def merges_of(tokens: list[str], n_merges: int) -> list[str]:
    """Up to that many `left right` in the order of the tokens that they make; one way of every
    token comes before a second of any."""
    known = set(tokens)
    ways = [
        [f"{text[:i]} {text[i:]}" for i in range(1, len(text)) if {text[:i], text[i:]} <= known]
        for text in tokens
    ]
    firsts = [found[0] for found in ways if found]
    others = [way for found in ways for way in found[1:]]
    return (firsts + others)[:n_merges]


def copy_with_vocabulary(source: Path, target: Path, n_merges: int) -> None:
    """Write the copy. Raises the errors of GGUFFile.open and GGUFWriter.write."""
    with GGUFFile.open(source) as file:
        n_tokens = file.tensors["token_embd.weight"].shape[0]
        tokens = made_up_tokens(n_tokens - len(_CONTROLS))
        merges = merges_of(tokens, n_merges)
        types = np.full(n_tokens, _NORMAL, np.int32)
        types[-len(_CONTROLS) :] = _CONTROL
        writer = GGUFWriter(target)
        for key, value in file.metadata.items():
            if not key.startswith("tokenizer."):
                writer.add(key, value)
        for name, value in {
            "model": "gpt2",
            "pre": file.metadata.str_(PREFIX + "pre", "qwen2"),
            "tokens": [*tokens, *_CONTROLS],
            "token_type": types,
            "merges": merges,
            "bos_token_id": len(tokens),
            "eos_token_id": len(tokens) + _CONTROLS.index("<|im_end|>"),
            "add_bos_token": False,
        }.items():
            writer.add(PREFIX + name, value)
        writer.add("tokenizer.chat_template", _CHAT_TEMPLATE)
        for name, info in file.tensors.items():
            writer.add_tensor(name, info.shape, info.type, file.tensor_bytes(name))
        writer.write()
    print(f"{target}: {n_tokens} tokens, {len(merges)} merges")


def main() -> None:
    """Copy one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--merges", type=int, default=280_000)
    options = parser.parse_args()
    copy_with_vocabulary(options.model, options.out, options.merges)


if __name__ == "__main__":
    main()
