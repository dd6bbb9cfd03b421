"""Every live request and every token it has got: what a restarted engine needs to go on.

The journal is also the guard at the engine's door: each token must be the next one of its choice,
so that no client ever reads a token twice or misses one, whatever an engine does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from rocmforge.errors import InvalidRequest
from rocmforge.request import Request, RequestId
from rocmforge.supervisor.handle import RequestHandle
from rocmforge.wire.channel import ChannelError
from rocmforge.wire.protocol import TokenOutput

# Ids whose tokens may still be under way when we have closed the request. An engine catches up
# within a step, in which no more than a queue full of requests can be cancelled.
MAX_RECENTLY_CLOSED = 16_384


class ProtocolViolation(ChannelError):
    """The engine sent a message that cannot be right: it has lost track, and is replaced."""


@dataclass
class JournalEntry:
    """One live request.

    generated: sampled token ids per choice, in order. finished: choices that have ended, by the
    engine or by us. stopped: those of them that we ended. in_engine: the engine of now has it.
    n_crashes: engine deaths since its last token in which it may have been running. n_restarts: all
    that it has lived through.
    """

    request: Request
    handle: RequestHandle
    generated: list[list[int]]
    finished: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    is_started: bool = False
    in_engine: bool = False
    n_crashes: int = 0
    n_restarts: int = 0

    @property
    def is_complete(self) -> bool:
        """True when every choice has ended."""
        return len(self.finished) == len(self.generated)

    def to_request(self) -> Request:
        """What an engine is given: the request, and where it has got to."""
        return msgspec.structs.replace(
            self.request,
            generated=tuple(tuple(ids) for ids in self.generated),
            finished=tuple(sorted(self.finished)),
        )


class Journal:
    """The live requests in arrival order."""

    def __init__(self) -> None:
        self._live: OrderedDict[RequestId, JournalEntry] = OrderedDict()
        self._recently_closed: OrderedDict[RequestId, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    def live(self) -> Iterable[JournalEntry]:
        """The entries in arrival order; a snapshot, so that entries may be closed meanwhile."""
        return tuple(self._live.values())

    def get(self, request_id: RequestId) -> JournalEntry | None:
        """The live entry, or None."""
        return self._live.get(request_id)

    def add(self, request: Request, handle: RequestHandle) -> JournalEntry:
        """Accept a request. Raises InvalidRequest when its id is in use or was just closed."""
        request_id = request.request_id
        if request_id in self._live or request_id in self._recently_closed:
            raise InvalidRequest(
                f"request id {request_id!r} is in use or was just cancelled: ids must be unique",
                param="request_id",
            )
        n = request.params.n
        known = request.generated or ((),) * n
        entry = JournalEntry(
            request=request,
            handle=handle,
            generated=[list(ids) for ids in known],
            finished=set(request.finished),
        )
        self._live[request_id] = entry
        return entry

    def record(self, token: TokenOutput) -> JournalEntry | None:
        """Write down a token; None when the client has closed what it belongs to.

        Raises ProtocolViolation unless it is the very next token of a running choice.
        """
        entry = self.of_message(token.request_id)
        if entry is None or token.choice in entry.stopped:
            return None
        choice = token.choice
        if not 0 <= choice < len(entry.generated):
            raise _violation(token, f"there are {len(entry.generated)} choices")
        if choice in entry.finished:
            raise _violation(token, f"token {token.index} after its last")
        ids = entry.generated[choice]
        if token.index != len(ids):
            raise _violation(token, f"token {token.index} came, {len(ids)} is next")
        ids.append(token.token_id)
        entry.n_crashes = 0
        if token.finish_reason is not None:
            entry.finished.add(choice)
        return entry

    def of_message(self, request_id: RequestId) -> JournalEntry | None:
        """The entry that a message is about; None when we have closed it.

        Raises ProtocolViolation when the engine never had such a request.
        """
        entry = self._live.get(request_id)
        if entry is not None and entry.in_engine:
            return entry
        if entry is None and request_id in self._recently_closed:
            return None
        raise ProtocolViolation(f"a message for request {request_id}, which was never sent")

    def close(self, request_id: RequestId, *, by_engine: bool) -> None:
        """Forget a request that has ended. `by_engine`: it will send nothing more for it."""
        entry = self._live.pop(request_id)
        if by_engine or not entry.in_engine:
            return
        self._recently_closed[request_id] = None
        if len(self._recently_closed) > MAX_RECENTLY_CLOSED:
            self._recently_closed.popitem(last=False)

    def engine_died(self, max_batch_size: int) -> list[JournalEntry]:
        """No entry is in an engine any more; those that were, in arrival order.

        A death is counted against the requests that may have been running: the first that fill a
        batch, since the engine takes them in order of arrival. The others only waited.
        """
        self._recently_closed.clear()
        were_in = [entry for entry in self._live.values() if entry.in_engine]
        n_sequences = 0
        for entry in were_in:
            entry.in_engine = False
            entry.n_restarts += 1
            entry.n_crashes += n_sequences < max_batch_size
            n_sequences += len(entry.generated) - len(entry.finished)
        return were_in


def _violation(token: TokenOutput, what: str) -> ProtocolViolation:
    return ProtocolViolation(f"request {token.request_id}, choice {token.choice}: {what}")
