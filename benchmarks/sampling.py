"""Times the sampler: usual chains, per vocabulary and batch size, Python included.

    python benchmarks/sampling.py [--json FILE] [--chains greedy,default] [--vocabs 32000,152000]
                                  [--batches 1,16] [--threads 1,2] [--isas avx2] [--rows flat]
                                  [--step-ms 12]

A call samples a batch of float32 logits as the engine does after a step: parameters, penalties over
64 tokens, and results included; the logits lie in the last cache, if it holds them. `of step` is
the call's time relative to --step-ms. --help lists the chains.

Two kinds of rows: `peaked` is like a language model's, a few dozen tokens far above a normal
distribution; `flat` is a normal distribution alone, the worst case of a nucleus.

Variants (instruction set × threads) take turns, and each number is the median of its turns.
`spread` and `waited` are as in kernels.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from turns import Turns, alternate, cpu_name

from rocmforge.backends.select import available_isas
from rocmforge.request import SamplingParams
from rocmforge.sampling.sampler import Sampler, SampleRow

CHAINS = {
    "greedy": SamplingParams(temperature=0.0),
    "usual": SamplingParams(
        temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, repetition_penalty=1.1
    ),
    "top-k": SamplingParams(top_k=50, top_p=0.9),
    "default": SamplingParams(),
    "top-p": SamplingParams(top_p=0.9),
    "min-p": SamplingParams(min_p=0.05),
    "logprobs": SamplingParams(logprobs=5),
}
# Above this share of waiting the table is followed by a warning.
BUSY = 0.05


@dataclass(frozen=True)
class Variant:
    """What is compared within a case."""

    isa: str
    n_threads: int


@dataclass(frozen=True)
class Case:
    """One chain at one size."""

    chain: str
    rows: str
    n_vocab: int
    batch: int


@dataclass(frozen=True)
class Result:
    """The median over a variant's turns."""

    case: Case
    variant: Variant
    ms: float
    spread: float
    ns_per_logit: float
    waited: float | None
    """Share of the runnable time without a core; None where the system does not tell."""
    of_step: float | None
    """Relative to --step-ms."""


def random_logits(kind: str, batch: int, n_vocab: int) -> np.ndarray:
    """Logits float32 [batch, n_vocab], the same in every run."""
    rng = np.random.default_rng(0)
    if kind == "flat":
        return rng.standard_normal((batch, n_vocab), np.float32)
    logits = rng.standard_normal((batch, n_vocab), np.float32) * np.float32(2.5)
    n_peaks = min(40, n_vocab)
    for row in logits:
        row[rng.choice(n_vocab, n_peaks, replace=False)] += np.linspace(16, 6, n_peaks)
    return logits


class Step:
    """What the engine hands to the sampler in one step of `batch` decoding sequences."""

    def __init__(self, params: SamplingParams, case: Case, variant: Variant) -> None:
        rng = np.random.default_rng(1)
        self._sampler = Sampler(case.n_vocab, n_threads=variant.n_threads, isa=variant.isa)
        self._logits = random_logits(case.rows, case.batch, case.n_vocab)
        self._params = params
        self._prompts = [rng.integers(0, case.n_vocab, 64).tolist() for _ in range(case.batch)]
        self._generated: list[int] = []
        self._rows = [self._row(choice) for choice in range(case.batch)]

    def __call__(self) -> None:
        """Sample the batch at a new position, behind a token that the text has already."""
        self._generated.append(self._prompts[0][len(self._generated) % 64])
        for row in self._rows:
            row.position = 64 + len(self._generated)
        self._sampler.sample(self._logits, self._rows)

    def _row(self, choice: int) -> SampleRow:
        return SampleRow(
            params=self._params,
            seed=1,
            choice=choice,
            position=64,
            prompt_ids=self._prompts[choice],
            generated_ids=self._generated,
        )


def results_of(case: Case, options: argparse.Namespace) -> Iterable[Result]:
    """All variants of a case, in turns."""
    steps = [Step(CHAINS[case.chain], case, variant) for variant in options.variants]
    turns = alternate(steps, options.turns, options.turn_ms / 1e3)
    return [
        summarize(case, variant, turn, options.step_ms)
        for variant, turn in zip(options.variants, turns, strict=True)
    ]


def summarize(case: Case, variant: Variant, turns: Turns, step_ms: float | None) -> Result:
    """Median, spread and rates of a variant's turns."""
    ms = turns.median_s * 1e3
    return Result(
        case,
        variant,
        ms=ms,
        spread=turns.spread,
        ns_per_logit=ms * 1e6 / (case.batch * case.n_vocab),
        waited=turns.waited,
        of_step=ms / step_ms if step_ms else None,
    )


def share(value: float | None) -> str:
    """Percent, or nothing."""
    return "" if value is None else f"{value:.1%}"


def show(console: Console, results: list[Result]) -> None:
    """Print the table, and say when it cannot be trusted."""
    table = Table(title="Sampling")
    for heading in ("chain", "rows", "isa"):
        table.add_column(heading, no_wrap=True)
    for heading in ("V", "batch", "threads", "ms", "spread", "waited", "ns/logit", "of step"):
        table.add_column(heading, justify="right")
    for i, r in enumerate(results):
        is_last = i + 1 == len(results) or results[i + 1].case.chain != r.case.chain
        table.add_row(
            r.case.chain,
            r.case.rows,
            r.variant.isa,
            str(r.case.n_vocab),
            str(r.case.batch),
            str(r.variant.n_threads),
            f"{r.ms:.3f}",
            share(r.spread),
            share(r.waited),
            f"{r.ns_per_logit:.3f}",
            share(r.of_step),
            end_section=is_last,
        )
    console.print(table)
    worst = max((r.waited or 0.0 for r in results), default=0.0)
    if worst > BUSY:
        console.print(
            f"Threads waited for a core up to {worst:.0%} of the time: something else was running. "
            "Run again on an idle machine before comparing these numbers with any others."
        )


def names(text: str) -> list[str]:
    """Comma-separated words."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """Comma-separated positive integers."""
    values = [int(word) for word in text.split(",")]
    if min(values) < 1:
        raise ValueError(text)
    return values


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write all results to FILE")
    parser.add_argument("--chains", type=names, default=list(CHAINS), help=", ".join(CHAINS))
    parser.add_argument("--rows", type=names, default=["peaked", "flat"])
    parser.add_argument("--vocabs", type=numbers, default=[152_000])
    parser.add_argument("--batches", type=numbers, default=[1, 16])
    parser.add_argument("--isas", type=names, default=available_isas()[:1])
    parser.add_argument(
        "--threads", type=numbers, default=sorted({1, len(os.sched_getaffinity(0))})
    )
    parser.add_argument("--step-ms", type=float, help="what a step takes without sampling")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--turn-ms", type=float, default=20.0, help="least length of a turn")
    options = parser.parse_args()
    if unknown := set(options.chains) - set(CHAINS):
        parser.error(f"no chain is called {', '.join(unknown)}; try {', '.join(CHAINS)}")
    if unknown := set(options.rows) - {"peaked", "flat"}:
        parser.error(f"rows are peaked or flat, not {', '.join(unknown)}")
    options.variants = [Variant(isa, n) for isa in options.isas for n in options.threads]
    return options


def main() -> None:
    """Run the benchmark."""
    options = parse()
    console = Console(width=110)
    results: list[Result] = []
    sizes = list(product(options.rows, options.vocabs, options.batches))
    for chain in options.chains:
        console.print(f"{chain} …")
        for rows, n_vocab, batch in sizes:
            results.extend(results_of(Case(chain, rows, n_vocab, batch), options))
    show(console, results)
    if options.json:
        report = {
            "cpu": cpu_name(),
            "machine": platform.platform(),
            "date": time.strftime("%Y-%m-%d"),
            "command": " ".join(sys.argv),
            "step_ms": options.step_ms,
            "results": [asdict(result) for result in results],
        }
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
