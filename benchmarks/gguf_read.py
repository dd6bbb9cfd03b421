"""Times the GGUF reader on a header as large as those of big models: vocabulary, merges, tensors.

    python benchmarks/gguf_read.py [MODEL.gguf] [--tokens 150000] [--merges 280000] [--repeat 5]

Prints one JSON object; every time is the best of the repeats. Without a model it writes one with
that many strings into a temporary folder. If the gguf package is installed, it is timed once, too.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rocmforge.gguf.reader import GGUFFile
from rocmforge.gguf.writer import GGUFWriter
from rocmforge.quant.formats import GGMLType


def write_model(path: Path, n_tokens: int, n_merges: int, n_tensors: int = 400) -> None:
    """A header like that of a model with a large vocabulary; its tensors are tiny."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzĠ"))
    lengths = rng.integers(1, 12, n_tokens)
    words = ["".join(rng.choice(letters, n)) + str(i) for i, n in enumerate(lengths)]
    writer = GGUFWriter(path, "llama")
    writer.add("tokenizer.ggml.tokens", words)
    writer.add("tokenizer.ggml.merges", [f"{words[i % n_tokens]} x" for i in range(n_merges)])
    writer.add("tokenizer.ggml.scores", np.zeros(n_tokens, np.float32))
    writer.add("tokenizer.ggml.token_type", np.ones(n_tokens, np.int32))
    for i in range(n_tensors):
        writer.add_tensor(f"blk.{i}.attn_norm.weight", (8,), GGMLType.F32, np.ones(8, np.float32))
    writer.write()


def best_ms(action: Callable[[], object], repeat: int) -> float:
    """The shortest of several runs, in milliseconds."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return round(min(times) * 1e3, 2)


def strings_of(file: GGUFFile) -> list[str]:
    """The keys whose values are arrays of strings."""
    return [key for key in file.metadata if type(file.metadata[key]).__name__ == "StringArray"]


def measured(path: Path, repeat: int) -> dict[str, object]:
    """The numbers of one file."""
    with GGUFFile.open(path, map_tensors=False) as file:
        metadata, keys = file.metadata, strings_of(file)
        n_tensors = len(file.tensors)

    def decode_all() -> None:
        for key in keys:
            list(metadata[key])

    return {
        "strings": {key: len(metadata[key]) for key in keys},
        "tensors": n_tensors,
        "open_ms": best_ms(lambda: GGUFFile.open(path).close(), repeat),
        "decode_all_strings_ms": best_ms(decode_all, repeat),
        "gguf_package_open_ms": package_ms(path),
    }


def package_ms(path: Path) -> float | None:
    """The same by the reader of the gguf package; None without it."""
    try:
        import gguf
    except ImportError:
        return None
    return best_ms(lambda: gguf.GGUFReader(path), 1)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tokens", type=int, default=150_000)
    parser.add_argument("--merges", type=int, default=280_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    result = {"machine": platform.platform(), "date": time.strftime("%Y-%m-%d")}
    if options.model:
        result |= {"model": options.model} | measured(Path(options.model), options.repeat)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "made-up.gguf"
            write_model(path, options.tokens, options.merges)
            result |= measured(path, options.repeat)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
