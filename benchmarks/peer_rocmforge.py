"""ROCmForge's side of compare.py: the engine as the server runs it, without the server.

The same work as peer_llama.py: a prompt that no cache knows until its first token is sampled, and
steps of one token for every sequence. The prompts before a generation are the same in every turn,
so the prefix cache keeps them.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from peers import serve

from rocmforge.cli.speed import SpeedRuns, bench_config
from rocmforge.config import CacheConfig, EngineConfig, LogConfig, SchedulerConfig
from rocmforge.engine.engine import Engine
from rocmforge.engine.start import start_engine
from rocmforge.observe.log import configure_logging


class RocmForgeModel:
    """The commands of the child."""

    def __init__(self) -> None:
        configure_logging(LogConfig(level="error"))
        self._engine: Engine | None = None
        self._runs: SpeedRuns | None = None
        self._prompts: dict[tuple[int, int], list[tuple[int, ...]]] = {}

    def load(
        self, file: str, threads: int, n_ctx: int, n_batch: int, n_seq: list[int], isa: str
    ) -> dict[str, Any]:
        """Load the model, with room for n_ctx positions of each sequence."""
        config = EngineConfig(
            model_path=file,
            device="cpu",
            isa=isa,
            n_threads=threads,
            cache=CacheConfig(kv_type="f16"),
            scheduler=SchedulerConfig(max_step_tokens=n_batch),
        )
        started = time.perf_counter()
        config = bench_config(config, n_ctx, 1, max(n_seq))
        self._engine, facts = start_engine(config)
        self._runs = SpeedRuns(self._engine, facts.n_vocab)
        return {
            "name": "rocmforge",
            "version": f"rocmforge {version('rocmforge')}",
            "isa": facts.isa,
            "threads": facts.n_threads,
            "weight_types": facts.weight_types,
            "decoded_types": facts.decoded_types,
            "weight_bytes": facts.weight_bytes,
            "load_s": time.perf_counter() - started,
        }

    def prompt(self, n_tokens: int) -> dict[str, Any]:
        """Seconds of one new prompt until its first token."""
        assert self._runs is not None
        return {"seconds": self._runs.time_prompts(self._runs.new_prompts(n_tokens, 1))}

    def generate(self, n_sequences: int, n_past: int, n_steps: int) -> dict[str, Any]:
        """Seconds of n_steps tokens for every sequence; their mean position is at least n_past."""
        assert self._runs is not None
        key = n_sequences, n_past
        if key not in self._prompts:
            self._prompts[key] = self._runs.new_prompts(n_past, n_sequences)
        generation = self._runs.time_generation(self._prompts[key], n_steps)
        return {"seconds": generation.seconds, "n_past": generation.n_past}


def main() -> None:
    """Serve the parent."""
    model = RocmForgeModel()
    serve({"load": model.load, "prompt": model.prompt, "generate": model.generate})


if __name__ == "__main__":
    main()
