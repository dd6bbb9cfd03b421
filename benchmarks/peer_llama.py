"""llama.cpp's side of compare.py: its C API through llama-cpp-python, used as llama-bench does.

A prompt is one llama_decode that wants the logits of its last token; generation is one llama_decode
per step, with one token of every sequence. Everything that llama.cpp chooses by itself stays as it
chooses: memory map, flash attention, buffers with repacked weights or for AMX.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp
from peers import serve

_ERROR_LEVEL = 4
_SEED = 1


class DecodeFailed(Exception):
    """llama_decode refused a batch."""


class Log:
    """What llama.cpp says while it loads; errors go to stderr."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        # Kept: llama.cpp calls it as long as it lives.
        self._callback = llama_cpp.llama_log_callback(self._add)
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _add(self, level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", "replace").strip()
        self.lines.append(line)
        if level == _ERROR_LEVEL:
            print(line)


class Context:
    """Keys and values of n_seq sequences, with room for n_ctx positions each."""

    def __init__(
        self, model: Any, threads: int, n_ctx: int, n_batch: int, n_seq: int, n_vocab: int
    ) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_ctx * n_seq
        params.n_batch = params.n_ubatch = n_batch
        params.n_seq_max = n_seq
        params.n_threads = params.n_threads_batch = threads
        self._handle = llama_cpp.llama_init_from_model(model, params)
        if not self._handle:
            raise DecodeFailed(f"no context of {n_ctx} positions for {n_seq} sequences")
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self._batch = llama_cpp.llama_batch_init(n_batch, 0, 1)
        self._n_batch = n_batch
        self._n_vocab = n_vocab
        self._random = random.Random(_SEED)
        self.n_seq = n_seq

    def clear(self) -> None:
        """Forget all sequences."""
        llama_cpp.llama_memory_clear(self._memory, True)

    def prefill(self, n_tokens: int) -> None:
        """Give every sequence a new prompt, in batches as large as they may be."""
        self.clear()
        for sequence in range(self.n_seq):
            for start in range(0, n_tokens, self._n_batch):
                end = min(start + self._n_batch, n_tokens)
                self.decode([(sequence, p, p == n_tokens - 1) for p in range(start, end)])

    def trim(self, n_past: int) -> None:
        """Forget all positions from n_past on."""
        for sequence in range(self.n_seq):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, n_past, -1)

    def decode(self, tokens: Sequence[tuple[int, int, bool]]) -> None:
        """Run random tokens: (sequence, position, whether its logits are wanted)."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, (sequence, position, has_logits) in enumerate(tokens):
            batch.token[i] = self._random.randrange(self._n_vocab)
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = has_logits
        status = llama_cpp.llama_decode(self._handle, batch)
        if status:
            raise DecodeFailed(f"llama_decode returned {status} for {len(tokens)} tokens")
        llama_cpp.llama_synchronize(self._handle)


class LlamaModel:
    """The commands of the child."""

    def __init__(self) -> None:
        self._log = Log()
        self._contexts: dict[int, Context] = {}
        # Sequences → positions that each of its sequences holds now.
        self._held: dict[int, int] = {}

    def load(
        self, file: str, threads: int, n_ctx: int, n_batch: int, n_seq: list[int]
    ) -> dict[str, Any]:
        """Map the model and make a context for each number of sequences."""
        llama_cpp.llama_backend_init()
        started = time.perf_counter()
        model = llama_cpp.llama_model_load_from_file(
            file.encode(), llama_cpp.llama_model_default_params()
        )
        if not model:
            raise DecodeFailed("\n".join(["llama.cpp did not load the model", *self._log.lines]))
        n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        for n in n_seq:
            self._contexts[n] = Context(model, threads, n_ctx, n_batch, n, n_vocab)
        return {
            "name": "llama.cpp",
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "system_info": llama_cpp.llama_print_system_info().decode().strip(" |"),
            "buffers": [line for line in self._log.lines if "model buffer size" in line],
            "threads": threads,
            "load_s": time.perf_counter() - started,
        }

    def prompt(self, n_tokens: int) -> dict[str, Any]:
        """Seconds of one new prompt until the logits of its last token."""
        context = self._contexts[1]
        context.clear()
        self._held[1] = 0
        started = time.perf_counter()
        context.prefill(n_tokens)
        return {"seconds": time.perf_counter() - started}

    def generate(self, n_sequences: int, n_past: int, n_steps: int) -> dict[str, Any]:
        """Seconds of n_steps tokens for every sequence, after n_past that are not counted."""
        context = self._contexts[n_sequences]
        if self._held.get(n_sequences) != n_past:
            context.prefill(n_past)
            self._held[n_sequences] = n_past
        started = time.perf_counter()
        for step in range(n_steps):
            context.decode([(s, n_past + step, True) for s in range(n_sequences)])
        seconds = time.perf_counter() - started
        context.trim(n_past)
        return {"seconds": seconds, "n_past": n_past}


def main() -> None:
    """Serve the parent."""
    model = LlamaModel()
    serve({"load": model.load, "prompt": model.prompt, "generate": model.generate})


if __name__ == "__main__":
    main()
