"""Carries events from the engine's messages, through the journal, to the requests' handles.

Each token is written down and handed on in one go, with nothing in between that could fail: what a
client has read is always what the next engine is told.
"""

from __future__ import annotations

from collections.abc import Callable

from rocmforge.errors import DeadlineExceeded, GenerationFailed, RocmForgeError
from rocmforge.observe.log import get_logger
from rocmforge.request import RequestId, RequestState
from rocmforge.supervisor.handle import Recovering
from rocmforge.supervisor.journal import Journal, JournalEntry
from rocmforge.wire.channel import ChannelError
from rocmforge.wire.protocol import Cancel, StepOutput, Submit, ToEngine, TokenOutput

_log = get_logger(__name__)


class Delivery:
    """The traffic of all requests. `send` passes a message to the engine of now, if there is one.

    n_tokens: tokens delivered so far, over all engines.
    """

    def __init__(self, journal: Journal, send: Callable[[ToEngine], None]) -> None:
        self._journal = journal
        self._send = send
        self.n_tokens = 0

    # ------------------------------------------------------------------ to the engine

    def submit(self, entry: JournalEntry) -> None:
        """Give a journalled request to the engine, with all that it has got so far.

        Raises ChannelError when it is larger than a frame.
        """
        self._send(Submit(request=entry.to_request()))
        entry.in_engine = True

    def resubmit(self, limit: int) -> list[JournalEntry]:
        """Submit up to `limit` requests that no engine has, in arrival order; those it took on.

        A request that cannot be sent fails: it would stop every later engine too.
        """
        waiting = [entry for entry in self._journal.live() if not entry.in_engine][:limit]
        for entry in waiting:
            try:
                self.submit(entry)
            except ChannelError as error:
                self.fail(entry, error)
        return waiting

    def cancel(self, request_id: RequestId, choice: int | None) -> None:
        """The client stops a request, or one choice of it; ended ones are left as they are."""
        entry = self._journal.get(request_id)
        if entry is None or choice in entry.finished:
            return
        if choice is not None:
            entry.finished.add(choice)
            entry.stopped.add(choice)
        if entry.in_engine:
            self._send(Cancel(request_id=request_id, choice=choice))
        if choice is None or entry.is_complete:
            self._journal.close(request_id, by_engine=False)
            entry.handle.end(RequestState.Cancelled if choice is None else RequestState.Completed)

    # ------------------------------------------------------------------ from the engine

    def step(self, output: StepOutput) -> None:
        """Hand on everything one step produced. Raises ProtocolViolation."""
        for started in output.started:
            entry = self._journal.of_message(started.request_id)
            if entry is not None and not entry.is_started:
                entry.is_started = True
                entry.handle.put(started)
        for token in output.tokens:
            self._token(token)
        for failed in output.failed:
            entry = self._journal.of_message(failed.request_id)
            if entry is not None:
                self.fail(entry, failed.error.to_error())

    def _token(self, token: TokenOutput) -> None:
        entry = self._journal.record(token)
        if entry is None:
            return
        self.n_tokens += 1
        entry.handle.put(token)
        if entry.is_complete:
            # Tokens of choices that we stopped may still be under way.
            self._journal.close(token.request_id, by_engine=not entry.stopped)
            entry.handle.end(RequestState.Completed)
        elif entry.handle.is_overfull:
            # Its reader has stopped: memory must not grow with what nobody takes.
            _log.warning("reader_stopped", request_id=token.request_id)
            # With an error: cut short as if it were complete, the answer would look whole.
            self.cut(entry, DeadlineExceeded("the client does not read; the request was stopped"))

    # ------------------------------------------------------------------ when it died

    def engine_died(self, max_batch_size: int) -> tuple[RequestId, ...]:
        """Tell everyone the dead engine was working for; their ids in arrival order."""
        victims = self._journal.engine_died(max_batch_size)
        for entry in victims:
            entry.handle.put(Recovering(entry.n_restarts))
        return tuple(entry.request.request_id for entry in victims)

    def fail_repeat_victims(self, max_crashes: int) -> None:
        """End requests that lived through more deaths in a row without a token of their own.

        The restart policy only counts restarts without any token. Without this, a request that
        kills every engine while others get tokens in between would keep it restarting for ever.
        """
        for entry in self._journal.live():
            if entry.n_crashes > max_crashes:
                message = (
                    f"the engine died {entry.n_crashes} times in a row before this request got "
                    "its next token; it is not tried again"
                )
                self.fail(entry, GenerationFailed(message))

    def fail_all(self, error: RocmForgeError) -> None:
        """End every live request with this error."""
        for entry in self._journal.live():
            self.fail(entry, error.copy())

    def cut_all(self, error: RocmForgeError) -> None:
        """End every live request with an error while the engine may still be working for it."""
        for entry in self._journal.live():
            self.cut(entry, error.copy())

    def cut(self, entry: JournalEntry, error: RocmForgeError) -> None:
        """End one request with an error, and tell its engine to stop."""
        request_id = entry.request.request_id
        if entry.in_engine:
            self._send(Cancel(request_id=request_id, choice=None))
        self._journal.close(request_id, by_engine=False)
        entry.handle.end(RequestState.Failed, error)

    def fail(self, entry: JournalEntry, error: RocmForgeError) -> None:
        """End one request with an error."""
        self._journal.close(entry.request.request_id, by_engine=True)
        entry.handle.end(RequestState.Failed, error)
