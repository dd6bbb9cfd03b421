"""ROCmForge and llama.cpp on the same files, in turns, beside what the machine can do at best.

    make bench-peer                                      # builds llama.cpp for this machine, once
    python benchmarks/compare.py [--shape 1b,0.5b] [--types Q4_0,Q4_K_M] [--work prompt,gen1,gen16]
                                 [--launches 3] [--turns 2] [--threads N] [--isa auto] [--json NAME]

Each side is a process of its own, launched anew a few times; both hold the same model at once. A
round is a turn of ours, a turn of theirs and the machine's limits, so a machine that slows down
does so for all of them. The ratio is the median over the rounds of theirs / ours in seconds, above
1 where we are faster; `middle half` is where half of the rounds' ratios lie. The works, with
--threads threads each and keys and values of 16 bits:

    prompt  a new prompt of 256 tokens until the logits of its last token (ours also samples it)
    gen1    16 tokens of one sequence after 32
    gen16   8 tokens of each of 16 sequences, together, after 32

`of reads` is the bytes that a turn must read (weights as the file stores them, once a step, and the
keys and values) per second, relative to the fastest of several ways to read as many bytes as the
weights are. `of multiply` is the multiply-adds with the weights per second, relative to the fastest
way to multiply in registers, `of isa` to that of the instruction set in use; for F16 and BF16 files
the limits of floats are meant. Above 100 % something is measured wrongly: the benchmark says what,
and fails. `waited` is the share of time that threads of either side which could run had to wait for
a core (Linux): when it is not near zero, other programs were measured too. `idle` is the processor
time that a side took while the other worked, relative to the turn.

The models are synthetic (see synthetic.py): random weights in true shapes, in --cache.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comparison import Comparison, ModelCost, Round, Work, compare_rounds
from machine import machine_facts
from peers import Peer, PeerFailed
from rich.console import Console
from rich.table import Table
from synthetic import FILE_TYPES, SHAPES, model_file

from rocmforge import _native

HERE = Path(__file__).resolve().parent
PEER_PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"
WORKS = {
    "prompt": Work("prompt 256", 1, 256),
    "gen1": Work("generation 1", 1, 16, 32),
    "gen16": Work("generation 16", 16, 8, 32),
}
# Room for the longest work: positions per sequence.
N_CTX = 320
N_BATCH = 512
LEAST_FOOTPRINT = 64 * 2**20
# Threads that waited in a spin after their last operation have gone to sleep by then.
SETTLE_S = 0.02
# Above this share of waiting, or of work while idle, the table is followed by a warning.
BUSY = 0.05


class NotMeasured(Exception):
    """A result that cannot be true; the message says which."""


class Side:
    """One side's process, and what its turns took over all launches."""

    def __init__(self, name: str, command: list[str]) -> None:
        self._name = name
        self._command = command
        self.facts: dict[str, Any] = {}
        self._run_ns = self._wait_ns = self._idle_ns = 0
        self._others_s = 0.0

    def launch(self, **load: Any) -> None:
        """Start the process and load the model."""
        self.peer = Peer(self._name, self._command)
        self.facts = self.peer.ask("load", **load)

    @property
    def waited(self) -> float | None:
        """Share of the runnable time without a core; None where the system does not tell."""
        total = self._run_ns + self._wait_ns
        return self._wait_ns / total if total else None

    @property
    def idle(self) -> float:
        """Processor time while the other worked, relative to its turns."""
        return self._idle_ns / 1e9 / self._others_s if self._others_s else 0.0

    def turn(self, other: Side, work: Work, n_past: int) -> tuple[float, int]:
        """Seconds, and the mean position of the first tokens; `other` is seen to be idle."""
        time.sleep(SETTLE_S)
        run_before, wait_before = self.peer.core_ns()
        idle_before, _ = other.peer.core_ns()
        if work.is_prompt:
            answer = self.peer.ask("prompt", n_tokens=work.n_tokens)
        else:
            answer = self.peer.ask(
                "generate", n_sequences=work.n_sequences, n_past=n_past, n_steps=work.n_tokens
            )
        run_after, wait_after = self.peer.core_ns()
        self._run_ns += run_after - run_before
        self._wait_ns += wait_after - wait_before
        other._idle_ns += other.peer.core_ns()[0] - idle_before
        other._others_s += answer["seconds"]
        return answer["seconds"], round(answer.get("n_past", 0))


@dataclass
class Result:
    """One work on one file."""

    shape: str
    file_type: str
    work: Work
    comparison: Comparison
    rounds: list[Round]


def measure_round(
    ours: Side, theirs: Side, work: Work, options: argparse.Namespace, footprint: int
) -> Round:
    """The limits and a turn of each."""
    reads = _native.read_limits(options.threads, footprint, options.limit_s)
    macs = _native.multiply_limits(options.threads, options.limit_s)
    # Our sequences join one after the other, so the first have a few tokens more than asked for:
    # theirs get as many.
    ours_s, n_past = ours.turn(theirs, work, work.n_past)
    theirs_s, _ = theirs.turn(ours, work, n_past)
    return Round(ours_s, theirs_s, max(reads.values()), macs, n_past)


def measure_file(
    path: Path, ours: Side, theirs: Side, options: argparse.Namespace, footprint: int
) -> dict[str, list[Round]]:
    """The rounds of each work. Launches differ from each other, as pages of memory fall otherwise,
    so there are several; the first turns of each are not counted."""
    load = {
        "file": str(path),
        "threads": options.threads,
        "n_ctx": N_CTX,
        "n_batch": N_BATCH,
        "n_seq": sorted({1, *(work.n_sequences for work in options.works)}),
    }
    rounds: dict[str, list[Round]] = {work.name: [] for work in options.works}
    for _ in range(options.launches):
        ours.launch(**load, isa=options.isa)
        theirs.launch(**load)
        for work in options.works:
            _, n_past = ours.turn(theirs, work, work.n_past)
            theirs.turn(ours, work, n_past)
            rounds[work.name] += [
                measure_round(ours, theirs, work, options, footprint) for _ in range(options.turns)
            ]
        for side in (ours, theirs):
            side.peer.close()
    return rounds


def compare_file(
    shape: str, file_type: str, options: argparse.Namespace
) -> tuple[list[Result], dict[str, Any]]:
    """All works on one file, and what ran."""
    path = model_file(options.cache, shape, file_type)
    cost = ModelCost.of_file(path)
    # The limit of reads depends on their size, as caches keep some of it from one pass to the next.
    footprint = max(LEAST_FOOTPRINT, cost.matrix_bytes)
    ours = Side("ROCmForge", [sys.executable, str(HERE / "peer_rocmforge.py")])
    theirs = Side("llama.cpp", [str(options.peer_python), str(HERE / "peer_llama.py")])
    rounds = measure_file(path, ours, theirs, options, footprint)
    results = [
        Result(
            shape,
            file_type,
            work,
            compare_rounds(work, cost, ours.facts["isa"], rounds[work.name]),
            rounds[work.name],
        )
        for work in options.works
    ]
    ran = {
        "file": path.name,
        "file_bytes": path.stat().st_size,
        "read_footprint_bytes": footprint,
        "cost": asdict(cost),
        "ours": {**ours.facts, "waited": ours.waited, "idle": ours.idle},
        "theirs": {**theirs.facts, "waited": theirs.waited, "idle": theirs.idle},
    }
    return results, ran


def show(console: Console, results: list[Result], runs: list[dict[str, Any]]) -> None:
    """The table, and what ran."""
    table = Table(
        title=f"tokens per second; ratio above 1: ROCmForge is faster ({machine_facts()['cpu']})"
    )
    for name in ("work", "shape", "file type"):
        table.add_column(name)
    for name in ("ours", "theirs", "ratio", "middle half", "of reads", "of multiply", "of isa"):
        table.add_column(name, justify="right")
    for r in sorted(results, key=lambda r: list(WORKS.values()).index(r.work)):
        c = r.comparison
        table.add_row(
            r.work.name,
            r.shape,
            r.file_type,
            f"{c.ours_tokens_per_s:,.1f}",
            f"{c.theirs_tokens_per_s:,.1f}",
            f"{c.ratio:.2f}",
            f"{c.ratio_low:.2f}–{c.ratio_high:.2f}",
            f"{c.read_share:.0%}",
            f"{c.best_multiply_share:.0%}",
            "-" if c.isa_multiply_share is None else f"{c.isa_multiply_share:.0%}",
        )
    console.print(table)
    for run in runs:
        show_run(console, run)
    say(console, *sorted({f"llama.cpp's {run['theirs']['system_info']}" for run in runs}))
    say(console, *warnings([run[side] for run in runs for side in ("ours", "theirs")]))


def warnings(sides: list[dict[str, Any]]) -> list[str]:
    """What made the turns doubtful."""
    found = []
    waited = max((side["waited"] or 0.0 for side in sides), default=0.0)
    if waited > BUSY:
        found.append(
            f"Threads waited for a core up to {waited:.0%} of the time: something else was "
            "running. Run again on an idle machine before comparing these numbers with any others."
        )
    found += [
        f"{side['version']} took {side['idle']:.0%} of a core while the other side worked: "
        "the other's numbers are too low."
        for side in sides
        if side["idle"] > BUSY
    ]
    return found


def say(console: Console, *lines: str) -> None:
    """Text that rich leaves alone."""
    for line in lines:
        console.print(line, markup=False, highlight=False)


def show_run(console: Console, run: dict[str, Any]) -> None:
    """What ran of a file, and whether it was disturbed."""
    ours, theirs = run["ours"], run["theirs"]
    decoded = [f"{n} {t} decoded to F32" for t, n in ours["decoded_types"].items()]
    buffers = [line.split(":", 1)[-1].strip() for line in theirs["buffers"]]
    say(console, f"{run['file']}, {run['file_bytes'] / 1e6:,.0f} MB")
    for side, what in ((ours, [ours["isa"], *decoded]), (theirs, buffers)):
        waited = "unknown" if side["waited"] is None else f"{side['waited']:.1%}"
        facts = [f"{side['threads']} threads", *what]
        say(
            console,
            f"  {side['version']}: {', '.join(facts)}; waited {waited}, idle {side['idle']:.1%}",
        )


def check(results: list[Result]) -> None:
    """Raises NotMeasured when a share is above what can be."""
    impossible = [
        f"{r.shape} {r.file_type} {r.work.name}: {share:.0%} of {what}"
        for r in results
        for what, share in r.comparison.shares.items()
        if share > 1.0
    ]
    if impossible:
        raise NotMeasured("above the machine's limit: " + "; ".join(impossible))


def report(
    options: argparse.Namespace, results: list[Result], runs: list[dict[str, Any]]
) -> dict[str, Any]:
    """Everything that was measured, for a file."""
    return {
        **machine_facts(),
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "benchmarks/compare.py", *sys.argv[1:]]),
        "threads": options.threads,
        "launches": options.launches,
        "turns_per_launch": options.turns,
        "runs": runs,
        "results": [asdict(result) for result in results],
    }


def result_path(name: str) -> Path:
    """A file of that name among the results; a path that ends with .json is taken as it is."""
    return Path(name) if name.endswith(".json") else HERE / "results" / f"{name}.json"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="1b", help=f"several of {', '.join(SHAPES)}")
    parser.add_argument("--types", default="Q4_0", help=f"several of {', '.join(FILE_TYPES)}")
    parser.add_argument("--work", default=",".join(WORKS), help="several of prompt, gen1, gen16")
    parser.add_argument("--launches", type=int, default=3, help="processes of each side")
    parser.add_argument("--turns", type=int, default=2, help="of each side, per launch and work")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", default="auto", help="our kernels; llama.cpp chooses its own")
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "rocmforge-synthetic-models"
    )
    parser.add_argument("--limit-s", type=float, default=0.5, help="per limit and round")
    parser.add_argument(
        "--json",
        metavar="NAME",
        help="write benchmarks/results/NAME.json, or the path if it ends with .json",
    )
    options = parser.parse_args(arguments)
    options.shapes = options.shape.split(",")
    options.file_types = options.types.split(",")
    for what, known in (("shapes", SHAPES), ("file_types", FILE_TYPES)):
        if unknown := set(getattr(options, what)) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if unknown := set(options.work.split(",")) - set(WORKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(WORKS)}")
    options.works = [WORKS[name] for name in options.work.split(",")]
    if min(options.launches, options.turns, options.threads) < 1:
        parser.error("--launches, --turns and --threads must be positive")
    if not options.peer_python.is_file():
        parser.error(
            f"there is no {options.peer_python}: run `make bench-peer` to build llama.cpp, or "
            "name an interpreter that has llama-cpp-python with --peer-python"
        )
    return options


def main() -> None:
    """Run the benchmark."""
    options = parse()
    console = Console(width=132)
    results: list[Result] = []
    runs: list[dict[str, Any]] = []
    try:
        for shape in options.shapes:
            for file_type in options.file_types:
                say(console, f"{shape} {file_type} …")
                found, run = compare_file(shape, file_type, options)
                results.extend(found)
                runs.append(run)
    except PeerFailed as error:
        sys.exit(f"compare.py: {error}")
    show(console, results, runs)
    if options.json:
        path = result_path(options.json)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(report(options, results, runs), indent=2) + "\n", "utf-8")
        console.print(f"written: {path}", markup=False, highlight=False)
    try:
        check(results)
    except NotMeasured as error:
        sys.exit(f"compare.py: {error}")


if __name__ == "__main__":
    main()
