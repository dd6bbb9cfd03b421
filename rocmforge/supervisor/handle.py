"""What a caller of EngineClient.submit holds: the events of one request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from rocmforge.errors import RocmForgeError
from rocmforge.request import RequestId, RequestState
from rocmforge.wire.protocol import RequestStarted, TokenOutput


@dataclass(frozen=True)
class Recovering:
    """The engine died and is being replaced; the stream goes on after a pause.

    `n_restarts`: engine deaths that this request has lived through.
    """

    n_restarts: int


MAX_UNREAD_EVENTS: Final = 8192
RequestEvent = RequestStarted | TokenOutput | Recovering
_TERMINAL = frozenset({RequestState.Completed, RequestState.Failed, RequestState.Cancelled})


class RequestHandle:
    """An async iterator over the request's events, for one consumer.

    Yields RequestStarted once, every TokenOutput exactly once and in order per choice, and a
    Recovering marker for each engine death. It ends after the last choice has finished or the
    request was cancelled, or raises the RocmForgeError that ended the request (once).

    As a context manager it cancels the request on the way out unless it has ended:

        with client.submit(request) as handle:
            async for event in handle:
                ...
    """

    def __init__(
        self,
        request_id: RequestId,
        cancel: Callable[[RequestId, int | None], None],
        *,
        max_unread: int = MAX_UNREAD_EVENTS,
    ) -> None:
        """max_unread: events that may wait for the reader; at one more the supervisor ends it."""
        self._max_unread = max_unread
        self.request_id = request_id
        self._cancel = cancel
        self._events: deque[RequestEvent] = deque()
        self._cancelled_choices: set[int] = set()
        self._state = RequestState.Pending
        self._error: RocmForgeError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def state(self) -> RequestState:
        """Where the request is in its life; a terminal state never changes again."""
        return self._state

    @property
    def is_done(self) -> bool:
        """True when no event can come any more (events not read yet may be left)."""
        return self._state in _TERMINAL

    @property
    def is_overfull(self) -> bool:
        """True when more events wait than a reader that reads would leave."""
        return len(self._events) > self._max_unread

    def cancel(self, choice: int | None = None) -> None:
        """Stop the request, or one of its choices: its tokens not read yet are dropped.

        Stopping the last running choice completes the request; of an ended request only the tokens
        not read yet are dropped.
        """
        if choice is None:
            self._events.clear()
        else:
            self._cancelled_choices.add(choice)
        self._cancel(self.request_id, choice)

    def __aiter__(self) -> RequestHandle:
        return self

    async def __anext__(self) -> RequestEvent:
        while True:
            while self._events:
                event = self._events.popleft()
                if self._is_wanted(event):
                    return event
            if not await self._more():
                raise StopAsyncIteration

    async def take(self) -> list[RequestEvent]:
        """All events that are there, waiting for the first; none at the end. Raises as iterating
        does.
        """
        while True:
            events = [event for event in self._events if self._is_wanted(event)]
            self._events.clear()
            if events or not await self._more():
                return events

    def _is_wanted(self, event: RequestEvent) -> bool:
        cancelled = self._cancelled_choices
        return not (cancelled and isinstance(event, TokenOutput) and event.choice in cancelled)

    async def _more(self) -> bool:
        """Wait for an event; False at the end. Raises the error that ended the request, once."""
        if self.is_done:
            error, self._error = self._error, None
            if error is not None:
                raise error
            return False
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
        return True

    def __enter__(self) -> RequestHandle:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if not self.is_done:
            self.cancel()

    def put(self, event: RequestEvent) -> None:
        """For the supervisor: one more event."""
        if isinstance(event, RequestStarted):
            self._state = RequestState.Processing
        self._events.append(event)
        self._wake_up()

    def end(self, state: RequestState, error: RocmForgeError | None = None) -> None:
        """For the supervisor: the terminal event; `error` exactly when the state is Failed."""
        assert not self.is_done, f"request {self.request_id} ended twice"
        self._state = state
        self._error = error
        self._wake_up()

    def _wake_up(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
