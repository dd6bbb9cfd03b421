"""Concurrent streaming clients, as light as they get: one process, raw sockets, parsing afterwards.

    python benchmarks/load_generator.py < requests.json > answers.json

Reads {"host", "port", "path", "bodies": [...]} and sends one request per body at the same moment,
each on a connection of its own that is open already. While answers come, the bytes of each read are
only kept with their time; they are taken apart when all have ended, and the processor time that is
told ends before that.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

Reads = list[tuple[float, bytes]]
_HEAD_END = b"\r\n\r\n"


class BadAnswer(Exception):
    """An answer that is no complete stream of tokens."""


@dataclass
class Answer:
    """What one client got. times_s: when each piece of text arrived, end_s: when the stream had
    ended, in seconds since the requests were sent. Token counts are the server's own."""

    times_s: list[float] = field(default_factory=list)
    end_s: float | None = None
    n_tokens: int = 0
    n_prompt_tokens: int = 0
    n_cached_tokens: int = 0


class _Client(asyncio.Protocol):
    """One connection; `ended` is set when the server has closed it."""

    def __init__(self) -> None:
        self.reads: Reads = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.reads.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def request_bytes(host: str, path: str, body: dict[str, Any]) -> bytes:
    """A POST after whose answer the server closes the connection."""
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + payload


async def drive(spec: dict[str, Any]) -> tuple[float, list[Reads], float]:
    """(when the requests were sent, each client's reads, seconds of processor time)."""
    loop = asyncio.get_running_loop()
    connections = [
        await loop.create_connection(_Client, spec["host"], spec["port"]) for _ in spec["bodies"]
    ]
    requests = [request_bytes(spec["host"], spec["path"], body) for body in spec["bodies"]]
    cpu_s = _cpu_s()
    start_s = time.perf_counter()
    for (transport, _), request in zip(connections, requests, strict=True):
        transport.write(request)
    for _, client in connections:
        await client.ended
    return start_s, [client.reads for _, client in connections], _cpu_s() - cpu_s


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def read_answer(reads: Reads, start_s: float) -> Answer:
    """Take a stream apart. Raises BadAnswer for another status, an error in the stream, or an end
    without `[DONE]`."""
    answer = Answer()
    for time_s, data in timed_events(reads):
        if data == b"[DONE]":
            answer.end_s = time_s - start_s
            continue
        event = json.loads(data)
        if "error" in event:
            raise BadAnswer(f"the stream failed: {data[:500].decode('utf-8', 'replace')}")
        _count(answer, event, time_s - start_s)
    if answer.end_s is None:
        raise BadAnswer("the stream ended without [DONE]")
    return answer


def _count(answer: Answer, event: dict[str, Any], time_s: float) -> None:
    for choice in event.get("choices", ()):
        if choice.get("text") or choice.get("delta", {}).get("content"):
            answer.times_s.append(time_s)
    if usage := event.get("usage"):
        answer.n_tokens = usage["completion_tokens"]
        answer.n_prompt_tokens = usage["prompt_tokens"]
        details = usage.get("prompt_tokens_details") or {}
        answer.n_cached_tokens = details.get("cached_tokens") or 0


def timed_events(reads: Reads) -> list[tuple[float, bytes]]:
    """(when its last byte came, data) of every event of a chunked stream.

    Raises BadAnswer when the answer's status is not 200.
    """
    events: list[tuple[float, bytes]] = []
    raw, body, is_body = b"", b"", False
    for time_s, data in reads:
        raw += data
        if not is_body:
            head, end, raw = raw.partition(_HEAD_END)
            if not end:
                raw = head
                continue
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise BadAnswer((head + _HEAD_END + raw)[:2000].decode("utf-8", "replace"))
            is_body = True
        more, raw = _whole_chunks(raw)
        *lines, body = (body + more).split(b"\n\n")
        events += [(time_s, line[6:]) for line in lines if line.startswith(b"data: ")]
    return events


def _whole_chunks(raw: bytes) -> tuple[bytes, bytes]:
    """(the content of the complete HTTP chunks at the beginning, what is left)."""
    content = b""
    while True:
        size_text, end, rest = raw.partition(b"\r\n")
        if not end:
            return content, raw
        size = int(size_text, 16)
        if len(rest) < size + 2:
            return content, raw
        content += rest[:size]
        raw = rest[size + 2 :]


def main() -> None:
    """Drive the clients that stdin describes."""
    spec = json.load(sys.stdin)
    start_s, reads, cpu_s = asyncio.run(drive(spec))
    try:
        answers = [read_answer(one, start_s) for one in reads]
    except BadAnswer as error:
        sys.exit(f"load_generator.py: {error}")
    json.dump({"cpu_s": cpu_s, "answers": [asdict(answer) for answer in answers]}, sys.stdout)


if __name__ == "__main__":
    main()
