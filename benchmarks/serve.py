"""What 16 clients get through HTTP, beside the engine alone and beside llama.cpp's server.

    python benchmarks/serve.py [MODEL] [--clients 16] [--prompt-tokens 64] [--answer-tokens 64]
                               [--turns 3] [--routes completions,chat] [--ctx 1024] [--threads N]
                               [--llama-server PATH] [--shared-tokens 460]
                               [--shared-answer-tokens 16] [--json FILE]

All clients stream and begin at the same moment, on connections that are open; greedy, of fixed
length. Two scenarios:

HTTP against in process: `rocmforge serve MODEL` with a load generator in a process of its own, in
turns with the same work (prompts as long, no cache knows any) on an engine in this process.
The ratio is that of generated tokens per second, from the requests to the end of the last answer;
server, engine and clients share the machine's cores.

A system prompt that all clients share, with a question each (--llama-server): our server in turns
with llama.cpp's, `-np` one slot per client. `first` is a system prompt that neither has seen, sent
by all clients at once; `again` the same one with other questions.

`with text` is the share of tokens that arrived as a piece of text of their own. A model that writes
control tokens when its end of text is ignored costs a server too little: use one that does not.
CPU is processor time per generated token, by process; `engine` of the in-process side is this
process. `outside` is the time of an engine's step outside of the native program: scheduling,
sampling, committing. `waited` (Linux) is the share of time that this process's threads waited for a
core in its own turns: when it is not near zero something else was running.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alone import EngineAlone
from rich.console import Console
from rich.table import Table
from served import LlamaServer, OurServer, Server, ServerFailed
from serving import Ratio, Summary, Turn, ratio_of, summarize
from turns import cpu_name

from rocmforge.config import EngineConfig, load_settings
from rocmforge.errors import RocmForgeError
from rocmforge.gguf.reader import GGUFFile
from rocmforge.model_source import resolve_model
from rocmforge.text.tokenizer import Tokenizer

ROUTES = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
QUESTION_TOKENS = 12
# Threads that waited in a spin after their last operation have gone to sleep by then.
SETTLE_S = 0.1
# Above this share of waiting the table is followed by a warning.
BUSY = 0.05
_SEED = 1
_WORDS = """
    the a one river garden stone window paper light morning road letter song house winter
    answer door boat field silver quiet early open green small round walks writes keeps finds
    sees brings under over with near before after while because and then often never slowly
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Comparison:
    """Two sides of one scenario, and their turns."""

    scenario: str
    sides: dict[str, list[Turn]]

    @property
    def summaries(self) -> dict[str, Summary]:
        """By side."""
        return {name: summarize(turns) for name, turns in self.sides.items()}

    @property
    def ratio(self) -> Ratio:
        """Throughput of the first side relative to the second."""
        ours, theirs = self.sides.values()
        return ratio_of(ours, theirs)


class Texts:
    """Texts of a wanted number of tokens; none comes twice, so no cache knows it."""

    def __init__(self, model: Path) -> None:
        with GGUFFile.open(model, map_tensors=False) as file:
            self._tokenizer = Tokenizer.from_metadata(file.metadata)
        self._random = random.Random(_SEED)

    def ids(self, n_tokens: int) -> list[int]:
        """The tokens of random words."""
        ids: list[int] = []
        while len(ids) < n_tokens:
            words = " " + " ".join(self._random.choices(_WORDS, k=n_tokens))
            ids += self._tokenizer.encode(words, add_special=False)
        return ids[:n_tokens]

    def text(self, n_tokens: int) -> str:
        """Random words of about as many tokens."""
        return self._tokenizer.decode(self.ids(n_tokens)).strip()


def body(n_answer: int, **prompt: Any) -> dict[str, Any]:
    """A request for exactly n_answer tokens, always the same ones."""
    fixed = {"max_tokens": n_answer, "temperature": 0, "ignore_eos": True}
    return fixed | {"stream": True, "stream_options": {"include_usage": True}} | prompt


def chat(user: str, system: str | None = None) -> dict[str, Any]:
    """The messages of a chat request."""
    head = [] if system is None else [{"role": "system", "content": system}]
    return {"messages": [*head, {"role": "user", "content": user}]}


def bodies(route: str, texts: Texts, options: argparse.Namespace, n_answer: int) -> list[Any]:
    """Prompts of about --prompt-tokens tokens, one per client."""
    n = options.prompt_tokens
    if route == "chat":
        return [body(n_answer, **chat(texts.text(n))) for _ in range(options.clients)]
    return [body(n_answer, prompt=texts.ids(n)) for _ in range(options.clients)]


def against_engine(
    route: str, server: Server, engine: EngineAlone, texts: Texts, options: argparse.Namespace
) -> Comparison:
    """Scenario one, in turns."""
    path, n_answer = ROUTES[route], options.answer_tokens

    def through_http() -> Turn:
        return server.drive(path, bodies(route, texts, options, n_answer))

    def in_process(http: Turn) -> Turn:
        return engine.run([texts.ids(n) for n in http.n_prompt_tokens], n_answer)

    server.drive(path, bodies(route, texts, options, 2))
    engine.run([texts.ids(options.prompt_tokens) for _ in range(options.clients)], 2)
    sides: dict[str, list[Turn]] = {"HTTP": [], "in process": []}
    for _ in range(options.turns):
        http = settled(through_http)
        sides["HTTP"].append(http)
        sides["in process"].append(settled(lambda http=http: in_process(http)))
    return Comparison(route, sides)


def against_llama(
    ours: Server, theirs: Server, texts: Texts, options: argparse.Namespace
) -> list[Comparison]:
    """Scenario two, in turns: a new system prompt, then the same again."""
    results = {name: {ours.name: [], theirs.name: []} for name in ("first", "again")}
    n_answer = options.shared_answer_tokens
    for turn in range(options.turns + 1):
        system = texts.text(options.shared_tokens)
        for sides in results.values():
            questions = [texts.text(QUESTION_TOKENS) for _ in range(options.clients)]
            requests = [body(n_answer, **chat(q, system)) for q in questions]
            for server in (ours, theirs):
                done = settled(lambda s=server, r=requests: s.drive(ROUTES["chat"], r))
                if turn:  # the first turn of all warms up
                    sides[server.name].append(done)
    return [Comparison(f"shared, {name}", sides) for name, sides in results.items()]


def settled(action: Callable[[], Turn]) -> Turn:
    """The turn, when whatever ran before has come to rest."""
    time.sleep(SETTLE_S)
    return action()


def show(console: Console, results: list[Comparison]) -> None:
    """Print the table."""
    table = Table(title=f"tokens per second of all clients together ({cpu_name()})")
    for heading in ("scenario", "side"):
        table.add_column(heading, no_wrap=True)
    headings = ("tokens/s", "ratio", "range", "TTFT p50", "p95", "gap p50", "p95", "with text")
    for heading in (*headings, "prompt", "cached", "CPU µs/token"):
        table.add_column(heading, justify="right")
    for result in results:
        ratio = result.ratio
        for name, s in result.summaries.items():
            is_first = name == next(iter(result.sides))
            table.add_row(
                result.scenario if is_first else "",
                name,
                f"{s.tokens_per_s:,.1f}",
                f"{ratio.median:.2f}" if is_first else "",
                f"{ratio.low:.2f}–{ratio.high:.2f}" if is_first else "",
                *(f"{ms:,.1f}" for ms in (s.ttft_p50_ms, s.ttft_p95_ms)),
                *(f"{ms:,.1f}" for ms in (s.gap_p50_ms, s.gap_p95_ms)),
                f"{s.with_text:.0%}",
                f"{s.prompt_tokens:,.0f}",
                f"{s.cached_tokens:,.0f}",
                ", ".join(f"{who} {us:,.0f}" for who, us in s.cpu_us_per_token.items()),
                end_section=not is_first,
            )
    console.print(table)


def show_engine(console: Console, engine: EngineAlone) -> None:
    """How the in-process side spent its steps."""
    waited = "unknown" if engine.waited is None else f"{engine.waited:.1%}"
    console.print(
        f"in process: {engine.step_ms:.2f} ms per step of all clients, {engine.outside_ms:.3f} ms "
        f"of it outside of the program; waited {waited}",
        highlight=False,
    )
    if (engine.waited or 0.0) > BUSY:
        console.print("Something else was running: compare these numbers with no others.")


def report(
    options: argparse.Namespace, results: list[Comparison], engine: EngineAlone
) -> dict[str, Any]:
    """Everything that was measured, for a file."""
    return {
        "cpu": cpu_name(),
        "machine": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(sys.argv),
        "model": options.model.name,
        "threads": options.threads,
        "isa": engine.facts.isa,
        "in_process": {
            "step_ms": engine.step_ms,
            "outside_ms": engine.outside_ms,
            "waited": engine.waited,
        },
        "results": [
            {
                "scenario": result.scenario,
                "ratio": asdict(result.ratio),
                "sides": {name: asdict(summary) for name, summary in result.summaries.items()},
                "tokens_per_s": {
                    name: [turn.tokens_per_s for turn in turns]
                    for name, turns in result.sides.items()
                },
            }
            for result in results
        ],
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="as for `rocmforge serve`")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--routes", default=",".join(ROUTES), help="none, or several")
    parser.add_argument("--ctx", type=int, default=1024, help="positions per client")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", default="auto", help="our kernels; llama.cpp chooses its own")
    parser.add_argument("--llama-server", type=Path, metavar="PATH", help="llama.cpp's binary")
    parser.add_argument("--shared-tokens", type=int, default=460, help="of the system prompt")
    parser.add_argument("--shared-answer-tokens", type=int, default=16)
    parser.add_argument("--json", metavar="FILE", help="write all results to FILE")
    options = parser.parse_args(arguments)
    options.routes = [name for name in options.routes.split(",") if name != "none"]
    if unknown := set(options.routes) - set(ROUTES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ROUTES)}")
    sizes = (options.clients, options.prompt_tokens, options.answer_tokens, options.turns)
    if min(*sizes, options.shared_tokens, options.shared_answer_tokens) < 1:
        parser.error("numbers of clients, tokens and turns must be positive")
    return options


def engine_config(options: argparse.Namespace) -> EngineConfig:
    """What `rocmforge serve` makes of these options and of the environment."""
    settings = load_settings()
    return replace(
        settings.engine,
        model_path=str(resolve_model(options.model or settings.model, settings.aliases)),
        n_threads=options.threads,
        max_sequence_length=options.ctx,
        isa=options.isa,
    )


def measure(options: argparse.Namespace, engine: EngineAlone, console: Console) -> list[Comparison]:
    """Both scenarios."""
    texts, results = Texts(options.model), []
    sizes = {"threads": options.threads, "n_ctx": options.ctx}
    server = OurServer(options.model, isa=options.isa, **sizes)
    try:
        for route in options.routes:
            console.print(f"{route} …")
            results.append(against_engine(route, server, engine, texts, options))
        if options.llama_server is not None:
            console.print("shared system prompt …")
            theirs = LlamaServer(
                options.llama_server, options.model, clients=options.clients, **sizes
            )
            try:
                results += against_llama(server, theirs, texts, options)
            finally:
                theirs.close()
    finally:
        server.close()
    return results


def main() -> None:
    """Run the benchmark."""
    options = parse()
    console = Console(width=150)
    try:
        config = engine_config(options)
        options.model = Path(config.model_path)
        engine = EngineAlone(config)
        results = measure(options, engine, console)
    except (ServerFailed, RocmForgeError) as error:
        sys.exit(f"serve.py: {error}")
    show(console, results)
    if options.routes:
        show_engine(console, engine)
    if options.json:
        text = json.dumps(report(options, results, engine), indent=2)
        Path(options.json).write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
