"""Times the start of a server and measures the memory of its processes.

    python benchmarks/startup.py MODEL.gguf [-n 5] [--json FILE] [-- OPTIONS OF rocmforge serve]

Starts `rocmforge serve` on the file several times, each time until GET /ready answers 200. The file
is read before, so that it lies in the page cache, and the first start does not count.

Times come from the server's own log lines (`age_ms` of engine_started, and the lines' time stamps)
and are milliseconds since the server's process was made:

    engine spawned    the engine process was made
    engine imported   it has its modules and its settings (backend_chosen)
    weights packed    weights_loaded
    engine ready      the first steps have run (engine_ready, as the engine says it)
    listening         the server has its modules and its address
    tokenizer ready   tokenizer_ready
    ready             the first 200 from GET /ready, which is asked every 10 ms

Memory is read from /proc half a second later, in MB, for the server, the engine and the helper
process of the chat templates: resident, its anonymous and its file pages, its proportional size
(pages that processes share are divided among them), and the peak; beside it the milliseconds of CPU
that the process has used, in steps of 10. The ratio is resident memory over weights and KV cache.
The cache counts as configured, though it is touched only as it fills; `weights alone` is the ratio
of a start after which next to nothing of it is touched.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

PHASES = {
    "engine imported": "backend_chosen",
    "weights packed": "weights_loaded",
    "listening": "listening",
    "tokenizer ready": "tokenizer_ready",
}
COLUMNS = ("Rss", "Anonymous", "File", "Pss", "Peak", "CPU ms")
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
_ASK_EVERY_S = 0.01
_SETTLE_S = 0.5
_GIVE_UP_S = 120.0
_MB = 1e6


class Start:
    """One start of a server, from its making to its first 200 from /ready."""

    def __init__(self, model: Path, options: list[str], log: Path) -> None:
        command = [sys.executable, "-P", "-m", "rocmforge.cli.main", "serve", str(model)]
        command += ["--port", "0", "--log-format", "json", *options]
        self._log = log
        self._seen = 0
        self.lines: list[dict[str, Any]] = []
        with log.open("wb") as stderr:
            self.made_s = time.time()
            self.process = subprocess.Popen(command, stderr=stderr, start_new_session=True)

    def wait_ready(self) -> float:
        """Milliseconds until /ready answered 200. Raises SystemExit when that never happens."""
        host, port = self._address()
        while time.time() - self.made_s < _GIVE_UP_S:
            connection = http.client.HTTPConnection(host, port, timeout=_GIVE_UP_S)
            connection.request("GET", "/ready")
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                return (time.time() - self.made_s) * 1000
            time.sleep(_ASK_EVERY_S)
        raise SystemExit("the server never became ready:\n" + self._log.read_text("utf-8"))

    def _address(self) -> tuple[str, int]:
        while not (found := self.events("listening")):
            if self.process.poll() is not None or time.time() - self.made_s > _GIVE_UP_S:
                raise SystemExit("the server does not listen:\n" + self._log.read_text("utf-8"))
            time.sleep(_ASK_EVERY_S)
        host, _, port = found[0]["url"].removeprefix("http://").rpartition(":")
        return host, int(port)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of that name so far."""
        complete = self._log.read_bytes().rpartition(b"\n")[0].splitlines()
        self.lines += [json.loads(line) for line in complete[self._seen :]]
        self._seen = len(complete)
        return [line for line in self.lines if line["event"] == name]

    def phases(self, ready_ms: float) -> dict[str, float]:
        """Milliseconds by phase."""
        (started,) = self.events("engine_started")
        times = {"engine spawned": self._ms(started) - started["age_ms"]}
        times |= {phase: self._ms(self.events(name)[0]) for phase, name in PHASES.items()}
        times["engine ready"] = self._ms(self._facts())
        times["ready"] = ready_ms
        return dict(sorted(times.items(), key=lambda item: item[1]))

    def _facts(self) -> dict[str, Any]:
        """The engine's own line of two with that name: it says what runs."""
        return next(line for line in self.events("engine_ready") if "weight_bytes" in line)

    def _ms(self, line: dict[str, Any]) -> float:
        return (datetime.fromisoformat(line["timestamp"]).timestamp() - self.made_s) * 1000

    def memory(self) -> dict[str, dict[str, float]]:
        """MB by process and kind, a little later."""
        time.sleep(_SETTLE_S)
        server, engine = self.process.pid, int(self._facts()["pid"])
        found = {"server": memory_of(server), "engine": memory_of(engine)}
        helpers = [pid for pid in children(server) if pid != engine]
        return found | {f"helper {i + 1}": memory_of(pid) for i, pid in enumerate(helpers)}

    def sizes(self) -> dict[str, float]:
        """MB of weights and of the KV cache as configured."""
        facts = self._facts()
        return {"weights": facts["weight_bytes"] / _MB, "kv": facts["kv_bytes"] / _MB}

    def stop(self) -> None:
        """Ctrl-C, and wait."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(_GIVE_UP_S)


def children(pid: int) -> list[int]:
    """Processes that `pid` has made."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text("ascii").split()]


def memory_of(pid: int) -> dict[str, float]:
    """MB of one process by kind."""
    folder = Path("/proc") / str(pid)
    fields = {}
    for name in ("smaps_rollup", "status"):
        for line in (folder / name).read_text("ascii").splitlines():
            words = line.split()
            if len(words) == 3 and words[2] == "kB":
                fields[words[0].rstrip(":")] = int(words[1]) * 1024 / _MB
    fields["File"] = fields["Rss"] - fields["Anonymous"]
    fields["Peak"] = fields["VmHWM"]
    after_name = (folder / "stat").read_text("utf-8").rpartition(")")[2].split()
    fields["CPU ms"] = _TICK_MS * (int(after_name[11]) + int(after_name[12]))
    return {name: round(fields[name], 1) for name in COLUMNS}


def read_whole(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(1 << 24)
        while file.readinto(buffer):
            continue


def measure(model: Path, options: list[str], n_starts: int, log: Path) -> dict[str, Any]:
    """Medians over the starts, after one that does not count."""
    read_whole(model)
    phases, memories, sizes = [], [], {}
    for number in range(n_starts + 1):
        start = Start(model, options, log)
        try:
            times = start.phases(start.wait_ready())
            if number:
                phases.append(times)
                memories.append(start.memory())
                sizes = start.sizes()
        finally:
            start.stop()
    names = sorted(phases[0], key=lambda name: statistics.median(t[name] for t in phases))
    ready = sorted(times["ready"] for times in phases)
    return {
        "model": model.name,
        "file_mb": round(model.stat().st_size / _MB, 1),
        "machine": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "date": time.strftime("%Y-%m-%d"),
        "options": options,
        "starts": n_starts,
        "ms": {name: round(statistics.median(t[name] for t in phases), 1) for name in names},
        "ready_ms_least_and_most": [round(ready[0], 1), round(ready[-1], 1)],
        "memory_mb": {
            process: {
                kind: round(statistics.median(m[process][kind] for m in memories), 1)
                for kind in COLUMNS
            }
            for process in memories[0]
        },
        "sizes_mb": {name: round(size, 1) for name, size in sizes.items()},
    }


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Resident memory over weights and KV cache: the engine's, and that of all processes."""
    sizes, memory = result["sizes_mb"], result["memory_mb"]
    total = sizes["weights"] + sizes["kv"]
    resident = sum(kinds["Rss"] for kinds in memory.values())
    shared_once = sum(kinds["Pss"] for kinds in memory.values())
    return {
        "engine, over weights alone": round(memory["engine"]["Rss"] / sizes["weights"], 3),
        "engine": round(memory["engine"]["Rss"] / total, 3),
        "all processes": round(resident / total, 3),
        "all processes, shared pages once": round(shared_once / total, 3),
        "engine's peak": round(memory["engine"]["Peak"] / total, 3),
    }


def print_tables(result: dict[str, Any]) -> None:
    """Phases, memory, ratios."""
    print(f"{result['model']}, {result['file_mb']} MB, {result['cores']} cores")
    for name, ms in result["ms"].items():
        print(f"  {name:<20}{ms:>9.1f} ms")
    least, most = result["ready_ms_least_and_most"]
    print(f"  {'(least, most)':<20}{least:>9.1f} {most:.1f} ms of {result['starts']} starts")
    print(f"  {'MB':<14}" + "".join(f"{name:>11}" for name in COLUMNS))
    for process, kinds in result["memory_mb"].items():
        print(f"  {process:<14}" + "".join(f"{kinds[name]:>11.1f}" for name in COLUMNS))
    sizes = result["sizes_mb"]
    print(f"  weights {sizes['weights']} MB + KV cache {sizes['kv']} MB (configured)")
    for name, ratio in result["ratios"].items():
        print(f"  {name:<34}{ratio:>7.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("-n", type=int, default=5, help="starts that count")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    # argparse takes what is behind `--` for words of the command line before it.
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    with tempfile.TemporaryDirectory() as folder:
        result = measure(given.model, words[cut + 1 :], given.n, Path(folder) / "server.log")
    result["ratios"] = ratios(result)
    print_tables(result)
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
