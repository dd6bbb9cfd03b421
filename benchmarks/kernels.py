"""Times the CPU kernels: matmul per format and batch size, attention per context.

    python benchmarks/kernels.py [--json FILE] [--formats Q8_0,Q4_K] [--tokens 1,16] [--isas avx2]
                                 [--threads 1,2] [--rows 2048] [--cols 2048] [--contexts 1024]

A matmul is timed with the quantisation of its input, as a model runs it. Up to four tokens its
weights are repeated until they are larger than the caches (--footprint-mib), so that they have to
stream from memory: `of read` compares that with numpy's dot product reading as many bytes with as
many threads. With more tokens, and in attention, the arithmetic decides: compare GOP/s (a multiply
and an add are two). Those fit into the caches, so they have no `of read`.

Variants (instruction set × threads) and the plain reads take turns, so that a machine that slows
down slows all of them, and each number is the median of its turns. A difference below `spread` (the
middle half of the turns, relative to the median) says nothing. `waited` is the share of time that
threads which could run had to wait for a core (Linux only): when it is not near zero something else
was running, and neither the times nor the gain of more threads say much about the kernels.
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
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from turns import Reader, Turns, alternate, cpu_name

from rocmforge.backends.cpu import KERNEL_TYPES, CpuBackend
from rocmforge.backends.ops import KvGeometry, Program, StepLimits, TensorSource
from rocmforge.backends.select import available_isas
from rocmforge.engine.step_plan import StepPlan
from rocmforge.quant.encode import ENCODERS, encode
from rocmforge.quant.formats import FORMATS, GGMLType, row_bytes

BLOCK_TOKENS = 16
# Attention of a small llama: 32 query heads on 8 kv heads of 64.
N_HEADS, N_KV_HEADS, HEAD_DIM = 32, 8, 64
# Above this share of waiting the table is followed by a warning.
BUSY = 0.05


@dataclass(frozen=True)
class Variant:
    """What is compared within a case."""

    isa: str
    n_threads: int


@dataclass(frozen=True)
class Case:
    """One kernel at one size, with the work of one call."""

    kernel: str
    size: str
    n_tokens: int
    n_bytes: int
    """Bytes that the kernel reads: weights, or the keys and values of each token."""
    n_operations: int
    streams: bool
    """Whether these bytes are read once and are more than the caches hold."""


@dataclass(frozen=True)
class Result:
    """The median over a variant's turns."""

    case: Case
    variant: Variant
    ms: float
    spread: float
    gb_per_s: float
    gop_per_s: float
    waited: float | None
    """Share of the runnable time without a core; None where the system does not tell."""
    of_read: float | None
    """Speed relative to plain reads in the same turns; None for what fits into the caches."""


def int32(values: Iterable[int]) -> np.ndarray:
    """An index array of a step."""
    return np.fromiter(values, np.int32)


def one_sequence(n_past: int, n_tokens: int, copies: Iterable[tuple[int, int]] = ()) -> StepPlan:
    """n_tokens of a sequence that holds n_past; no logits are wanted."""
    end = n_past + n_tokens
    return StepPlan(
        token_ids=int32(range(n_tokens)),
        positions=int32(range(n_past, end)),
        query_start=int32([0, n_tokens]),
        context_len=int32([end]),
        block_tables=int32(range(-(-end // BLOCK_TOKENS))).reshape(1, -1),
        logits_rows=int32([]),
        block_copies=np.array(list(copies), np.int32).reshape(-1, 2),
    )


def source(name: str, type_: GGMLType, values: np.ndarray) -> TensorSource:
    """A tensor as a file would hold it; random codes with one scale where there is no encoder."""
    if type_ in ENCODERS:
        return TensorSource(name, type_, values.shape, memoryview(encode(type_, values)))
    form = FORMATS[type_]
    shape = (values.size // form.block_size, form.block_bytes)
    blocks = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    scale = [120] if type_ == GGMLType.MXFP4 else np.array([0.01], "<f2").view(np.uint8)
    blocks[:, : len(scale)] = scale
    return TensorSource(name, type_, values.shape, memoryview(blocks.tobytes()))


def random_rows(rows: int, cols: int) -> np.ndarray:
    """The same values in every run."""
    return np.random.default_rng(0).normal(size=(rows, cols)).astype(np.float32)


def matmul_program(
    variant: Variant, type_: GGMLType, values: np.ndarray, n_copies: int, max_tokens: int
) -> Program:
    """n_copies matmuls of the same input with equal weights that lie apart."""
    backend = CpuBackend(variant.n_threads, variant.isa)
    weight = source("w", type_, values)
    copies = [TensorSource(f"w{i}", type_, weight.shape, weight.data) for i in range(n_copies)]
    x = source("x", GGMLType.F32, random_rows(max_tokens, values.shape[1]))
    refs = backend.load_weights([x, *copies])

    def forward(ops: Any) -> None:
        x = ops.embed(refs["x"])
        for copy in copies:
            last = ops.matmul(x, refs[copy.name])
        ops.output(ops.select_rows(last))

    n_blocks = -(-max_tokens // BLOCK_TOKENS)
    return backend.create_program(forward, geometry(1, 8, n_blocks), limits(max_tokens, n_blocks))


def geometry(n_kv_heads: int, head_dim: int, n_blocks: int) -> KvGeometry:
    """A cache of one layer."""
    return KvGeometry(
        n_layers=1,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        n_blocks=n_blocks,
        block_tokens=BLOCK_TOKENS,
        kv_type="f16",
    )


def limits(max_tokens: int, max_blocks: int) -> StepLimits:
    """Room for one sequence."""
    return StepLimits(
        max_tokens=max_tokens, max_sequences=1, max_rows=1, max_blocks_per_sequence=max_blocks
    )


def attention_program(variant: Variant, context: int, max_tokens: int) -> Program:
    """kv_append and attention over a cache of `context` positions that is filled."""
    backend = CpuBackend(variant.n_threads, variant.isa)
    n_rows, n_blocks = max(max_tokens, BLOCK_TOKENS), -(-context // BLOCK_TOKENS)
    widths = {"q": N_HEADS * HEAD_DIM, "k": N_KV_HEADS * HEAD_DIM, "v": N_KV_HEADS * HEAD_DIM}
    refs = backend.load_weights(
        [source(name, GGMLType.F32, random_rows(n_rows, width)) for name, width in widths.items()]
    )

    def forward(ops: Any) -> None:
        q, k, v = (ops.embed(refs[name]) for name in widths)
        ops.kv_append(0, k, v)
        out = ops.attention(0, q, N_HEADS, HEAD_DIM**-0.5, 0)
        ops.output(ops.select_rows(out))

    kv = geometry(N_KV_HEADS, HEAD_DIM, n_blocks)
    program = backend.create_program(forward, kv, limits(n_rows, n_blocks))
    # Written once, then copied: pages never written would all be one page of zeros, in the cache.
    program.run(one_sequence(0, BLOCK_TOKENS))
    program.run(one_sequence(0, 1, [(0, i) for i in range(1, n_blocks)]))
    return program


def summarize(case: Case, variant: Variant, turns: Turns, read_gb_per_s: float | None) -> Result:
    """Median, spread and rates of a variant's turns."""
    gb_per_s = case.n_bytes / turns.median_s / 1e9
    return Result(
        case,
        variant,
        ms=turns.median_s * 1e3,
        spread=turns.spread,
        gb_per_s=gb_per_s,
        gop_per_s=case.n_operations / turns.median_s / 1e9,
        waited=turns.waited,
        of_read=gb_per_s / read_gb_per_s if read_gb_per_s else None,
    )


def matmul_results(name: str, options: argparse.Namespace) -> Iterable[Result]:
    """One format at all batch sizes."""
    rows, cols, type_ = options.rows, options.cols, GGMLType[name]
    values = random_rows(rows, cols)
    matrix_bytes = rows * row_bytes(type_, cols)
    n_copies = max(1, -(-options.footprint_mib * 2**20 // matrix_bytes))
    for n_tokens in options.tokens:
        # With many tokens a matrix is used long enough that it does not matter where it came from.
        is_streamed = n_tokens <= 4
        n = n_copies if is_streamed else 1
        programs = [matmul_program(v, type_, values, n, n_tokens) for v in options.variants]
        case = Case(
            f"matmul {name}",
            f"{rows}x{cols}",
            n_tokens,
            n * matrix_bytes,
            2 * n * rows * cols * n_tokens,
            streams=is_streamed,
        )
        yield from compare(case, programs, one_sequence(0, n_tokens), options)


def attention_results(context: int, options: argparse.Namespace) -> Iterable[Result]:
    """The last token of a context, and its last 64 as in a prefill."""
    for n_tokens in sorted({1, min(64, context)}):
        n_past = context - n_tokens
        seen = sum(range(n_past + 1, context + 1))
        case = Case(
            "attention f16",
            f"{context} keys",
            n_tokens,
            2 * 2 * N_KV_HEADS * HEAD_DIM * seen,
            2 * 2 * N_HEADS * HEAD_DIM * seen,
            streams=False,
        )
        programs = [attention_program(v, context, n_tokens) for v in options.variants]
        yield from compare(case, programs, one_sequence(n_past, n_tokens), options)


def compare(
    case: Case, programs: list[Program], step: StepPlan, options: argparse.Namespace
) -> Iterable[Result]:
    """All variants of a case, in turns; plain reads with them where memory is what counts."""
    footprint = options.footprint_mib * 2**20
    threads = options.threads if case.streams else []
    readers = {n: Reader(n, footprint) for n in threads}
    actions = [lambda p=program: p.run(step) for program in programs]
    turns = alternate([*actions, *readers.values()], options.turns, options.turn_ms / 1e3)
    read_gb_per_s = {
        n: reader.n_bytes / turn.median_s / 1e9
        for (n, reader), turn in zip(readers.items(), turns[len(actions) :], strict=True)
    }
    for resource in (*programs, *readers.values()):
        resource.close()
    return [
        summarize(case, variant, turn, read_gb_per_s.get(variant.n_threads))
        for variant, turn in zip(options.variants, turns, strict=False)
    ]


def share(value: float | None) -> str:
    """Percent, or nothing."""
    return "" if value is None else f"{value:.0%}"


def show(console: Console, results: list[Result]) -> None:
    """Print the table, and say when it cannot be trusted."""
    table = Table(title="CPU kernels")
    for heading in ("kernel", "size", "isa"):
        table.add_column(heading, no_wrap=True)
    for heading in ("T", "threads", "ms", "spread", "waited", "GB/s", "of read", "GOP/s"):
        table.add_column(heading, justify="right")
    for i, r in enumerate(results):
        is_last = i + 1 == len(results) or results[i + 1].case != r.case
        table.add_row(
            r.case.kernel,
            r.case.size,
            r.variant.isa,
            str(r.case.n_tokens),
            str(r.variant.n_threads),
            f"{r.ms:.3f}",
            share(r.spread),
            share(r.waited),
            f"{r.gb_per_s:.2f}",
            share(r.of_read),
            f"{r.gop_per_s:.2f}",
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
    parser.add_argument("--formats", type=names, default=list(KERNEL_TYPES))
    parser.add_argument("--tokens", type=numbers, default=[1, 4, 16, 64, 256])
    parser.add_argument("--contexts", type=numbers, default=[256, 1024, 4096])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--cols", type=int, default=2048, help="a multiple of 256")
    parser.add_argument("--isas", type=names, default=available_isas())
    parser.add_argument(
        "--threads", type=numbers, default=sorted({1, len(os.sched_getaffinity(0))})
    )
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--turn-ms", type=float, default=20.0, help="least length of a turn")
    parser.add_argument("--footprint-mib", type=int, default=128, help="beyond the last cache")
    options = parser.parse_args()
    if unknown := set(options.formats) - set(KERNEL_TYPES):
        parser.error(f"no kernel multiplies {', '.join(unknown)}; try {', '.join(KERNEL_TYPES)}")
    options.variants = [Variant(isa, n) for isa in options.isas for n in options.threads]
    return options


def main() -> None:
    """Run the benchmark."""
    options = parse()
    console = Console(width=110)
    results: list[Result] = []
    for name in options.formats:
        console.print(f"matmul {name} …")
        results.extend(matmul_results(name, options))
    for context in options.contexts:
        console.print(f"attention over {context} keys …")
        results.extend(attention_results(context, options))
    show(console, results)
    if options.json:
        report = {
            "cpu": cpu_name(),
            "machine": platform.platform(),
            "date": time.strftime("%Y-%m-%d"),
            "command": " ".join(sys.argv),
            "results": [asdict(result) for result in results],
        }
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
