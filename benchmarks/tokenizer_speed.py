"""Times the text side of a model file: loading the tokenizer, encoding, decoding, streaming.

    python benchmarks/tokenizer_speed.py [MODEL.gguf] [--chars N] [--repeat N]

Prints one JSON object; every time is the best of the repeats.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Callable

from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.gguf.reader import GGUFFile
from rocmforge.text.detokenizer import Detokenizer
from rocmforge.text.tokenizer import Tokenizer

_WORDS = (
    "the of and in to a is was for that on as with by he it at from Zürich naïve Москва 東京 "
    "1984 3.14 function(x) {return} https://example.org :-) 👍 don't"
)
WORDS = _WORDS.split()


def made_up_text(n_chars: int) -> str:
    """Words in random order, the same ones in every run."""
    rng = random.Random(0)
    parts: list[str] = []
    length = 0
    while length < n_chars:
        parts.append(rng.choice(WORDS) + rng.choice((" ", " ", " ", ", ", ".\n")))
        length += len(parts[-1])
    return "".join(parts)[:n_chars]


def best_s(action: Callable[[], object], repeat: int) -> float:
    """The shortest of several runs, in seconds."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(EMBEDDED_MODEL_PATH))
    parser.add_argument("--chars", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with GGUFFile.open(options.model, map_tensors=False) as file:
        metadata = file.metadata
    tokenizer = Tokenizer.from_metadata(metadata)
    text = made_up_text(options.chars)
    ids = tokenizer.encode(text)

    def stream() -> None:
        detokenizer = Detokenizer(tokenizer, ("</answer>", "\n\nUser:"))
        for token_id in ids:
            detokenizer.push(token_id)
        detokenizer.flush()

    load_s = best_s(lambda: Tokenizer.from_metadata(metadata), options.repeat)
    encode_s = best_s(lambda: tokenizer.encode(text), options.repeat)
    decode_s = best_s(lambda: tokenizer.decode(ids), options.repeat)
    stream_s = best_s(stream, options.repeat)
    result = {
        "model": options.model,
        "machine": platform.platform(),
        "date": time.strftime("%Y-%m-%d"),
        "n_vocab": tokenizer.n_vocab,
        "chars": len(text),
        "tokens": len(ids),
        "load_ms": round(load_s * 1e3, 2),
        "encode_tokens_per_s": round(len(ids) / encode_s),
        "decode_tokens_per_s": round(len(ids) / decode_s),
        "stream_us_per_token": round(stream_s / len(ids) * 1e6, 3),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
