"""Writes tokenizer_bpe.json and tokenizer_spm.json: what llama.cpp makes of the hard texts.

Run with a Python that has llama-cpp-python and gguf, from the repository root:
    PYTHONPATH=.:tests/golden python tests/golden/make_tokenizer.py
"""

from __future__ import annotations

import importlib.metadata
import json

from tokenizer_oracle import llama_vocabulary
from tokenizer_vocabularies import (
    BPE_GOLDEN,
    MARKED,
    SPECIAL,
    SPM_GOLDEN,
    SPM_VARIANTS,
    TEXTS,
    bpe_metadata,
    byte_characters,
    marked_metadata,
    spm_metadata,
    spm_pieces,
    train_merges,
)

from rocmforge.text.pre_tokenizers import PRE_TOKENIZERS

ORACLE = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"
N_MERGES = 900
N_PIECES = 500


def make_bpe() -> None:
    table = byte_characters()
    words = [[table[byte] for byte in text.encode()] for text in _training_texts()]
    merges = [f"{left} {right}" for left, right in train_merges(words, N_MERGES)]
    groups: list[dict[str, object]] = []
    names: dict[str, int] = {}
    for name in PRE_TOKENIZERS:
        with llama_vocabulary(bpe_metadata(name, merges)) as oracle:
            found: dict[str, object] = {
                "adds_bos": oracle.adds_bos,
                "ids": [oracle.encode(t, add_special=False, parse_special=True) for t in TEXTS],
            }
        if found not in groups:
            groups.append(found)
        names[name] = groups.index(found)
    with llama_vocabulary(bpe_metadata("llama-bpe", merges)) as oracle:
        common = _common(oracle)
    content = {"merges": merges, "names": names, "groups": groups, "common": common}
    _write(BPE_GOLDEN, {**content, "marked": {name: _marks(name) for name in MARKED}})


def _marks(name: str) -> dict[str, list[int]]:
    """Ids that end a generation, and ids of control tokens."""
    with llama_vocabulary(marked_metadata(name)) as oracle:
        ids = range(len(MARKED[name][0]))
        return {
            "ends": [i for i in ids if oracle.is_eog(i)],
            "control": [i for i in ids if oracle.is_control(i)],
        }


def make_spm() -> None:
    words = [list(("▁" + text).replace(" ", "▁")) for text in _training_texts()]
    merges = train_merges(words, N_PIECES)
    texts = dict.fromkeys(left + right for left, right in merges)
    # Scores fall with the rank, but in steps, so that there are ties; a quarter of the
    # characters is no token, so that merges start from characters outside the vocabulary.
    pieces = [[text, -float(rank // 3)] for rank, text in enumerate(texts)]
    characters = sorted({c for word in words for c in word} - set(texts))
    pieces += [
        [c, -1000.0 - i] for i, c in enumerate(characters) if c == "▁" or (i % 4 and c != "\n")
    ]
    golden: dict[str, object] = {"pieces": pieces}
    results: dict[str, object] = {}
    for across in (False, True):
        chosen = spm_pieces(golden, across_words=across)
        for variant, extra in SPM_VARIANTS.items():
            if across and extra:
                continue
            with llama_vocabulary(spm_metadata(chosen, **extra)) as oracle:
                results[f"{variant}, {'across' if across else 'within'} words"] = _common(oracle)
    _write(SPM_GOLDEN, {**golden, "variants": results})


def _training_texts() -> list[str]:
    # Merges must not make the text of a special token a second time, and llama.cpp's reader
    # ends a token at a zero byte.
    unwanted = ("\0", "zebra", *(text for text, _ in SPECIAL))
    texts = [t for t in TEXTS if not any(text in t for text in unwanted)]
    # The last ones are there for rare differences: their merges must come about.
    return texts * 2 + texts[-2:] * 4


def _common(oracle) -> dict[str, object]:
    """Encoding in three ways, and decoding of the ids of the second way."""
    ids = [oracle.encode(text, add_special=False, parse_special=True) for text in TEXTS]
    return {
        "plain": [oracle.encode(text, add_special=False, parse_special=False) for text in TEXTS],
        "parsed": ids,
        "special": [oracle.encode(text, add_special=True, parse_special=False) for text in TEXTS],
        "pieces": [oracle.pieces(i, special=False).decode("latin-1") for i in ids],
        "named": oracle.pieces([i for line in ids for i in line], special=True).decode("latin-1"),
        "decoded": [oracle.decode(i).decode("latin-1") for i in ids],
    }


def _write(path, content: dict[str, object]) -> None:
    content = {"oracle": ORACLE, "script": "tests/golden/make_tokenizer.py", **content}
    path.write_text(_layout(content) + "\n", encoding="utf-8")
    print(path, path.stat().st_size)


def _layout(value: object) -> str:
    """JSON with one line per innermost list."""
    if isinstance(value, dict):
        items = (f"{json.dumps(key)}:{_layout(item)}" for key, item in value.items())
        return "{" + ",\n".join(items) + "}"
    if isinstance(value, list) and value and isinstance(value[0], (list, dict)):
        return "[" + ",\n".join(map(_layout, value)) + "]"
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    make_bpe()
    make_spm()
