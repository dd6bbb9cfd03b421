"""Runs the requests of this process on its engine, and sorts what comes out.

Whoever waits for tokens runs the next step; what that step gives to others waits for them. So
several streams can be read in turns, and all of them go on together.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from threading import Lock

import msgspec

from rocmforge.api.generation import (
    GenerationDelta,
    GenerationResult,
    GrowingChoice,
    usage_of,
)
from rocmforge.engine.engine import Engine
from rocmforge.errors import GenerationFailed, InternalError, InvalidRequest, RocmForgeError
from rocmforge.request import Request, RequestId, SamplingParams
from rocmforge.text.detokenizer import Detokenizer
from rocmforge.wire.protocol import StepOutput, TokenOutput


class LiveGeneration:
    """One request: what it has got, and what nobody has read yet."""

    def __init__(self, request: Request, detokenizers: Sequence[Detokenizer | None]) -> None:
        self.request = request
        self.unread: deque[GenerationDelta] = deque()
        self.has_ended = False
        self.error: RocmForgeError | None = None
        self.num_cached_tokens = 0
        self._choices = [GrowingChoice(i, d) for i, d in enumerate(detokenizers)]

    def push(self, token: TokenOutput) -> bool:
        """Take a token; True when a stop string ends its choice, which the engine must be told."""
        choice = self._choices[token.choice]
        self.unread.append(choice.push(token))
        self.has_ended = all(c.finish_reason is not None for c in self._choices)
        return choice.finish_reason is not None and token.finish_reason is None

    def fail(self, error: RocmForgeError) -> None:
        """End with an error."""
        self.error = error
        self.has_ended = True

    def result(self) -> GenerationResult:
        """What a request that has ended came to. Raises the error that it failed with."""
        if self.error is not None:
            raise self.error
        choices = [choice.result() for choice in self._choices]
        done = tuple(choice for choice in choices if choice is not None)
        if len(done) < len(choices):
            raise InvalidRequest("the generation has not ended: read its stream to the end first")
        usage = usage_of(len(self.request.prompt_ids), self._choices, self.num_cached_tokens)
        return GenerationResult(done, usage)


class EngineSession:
    """The engine of one model. Threads take turns; a step is never shared.

    make_engine: an empty engine, for the start and for after an interruption.
    """

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._engine = make_engine()
        self._live: dict[RequestId, LiveGeneration] = {}
        self._abandoned: deque[RequestId] = deque()
        self._ids = count()
        self._lock = Lock()
        self.is_closed = False

    def request(
        self, prompt_ids: Sequence[int], params: SamplingParams, eog_ids: Sequence[int]
    ) -> Request:
        """A request of this session; a missing seed is drawn."""
        if params.seed is None:
            params = msgspec.structs.replace(params, seed=secrets.randbits(63))
        return Request(
            request_id=RequestId(f"local-{next(self._ids)}"),
            prompt_ids=tuple(prompt_ids),
            params=params,
            eog_ids=tuple(eog_ids),
        )

    def submit(
        self, request: Request, detokenizers: Sequence[Detokenizer | None]
    ) -> LiveGeneration:
        """Let the engine have a request. Raises the errors of Engine.submit, and InvalidRequest
        when the model is closed.
        """
        with self.turn():
            self._drop_abandoned()
            self._engine.submit(request)
            live = LiveGeneration(request, detokenizers)
            self._live[request.request_id] = live
            return live

    def step(self, waiting: LiveGeneration) -> None:
        """Run one step, unless `waiting` has something to read by now (another thread's step gave
        it). Raises the backend's errors, after which the step may be run again.
        """
        with self.turn():
            if not waiting.unread and not waiting.has_ended:
                self._drop_abandoned()
                self._take(self._engine.step())

    def abandon(self, live: LiveGeneration) -> None:
        """Nobody reads it any more: it is cancelled before the next step.

        Takes no lock, since the garbage collector may call it at any time, in the midst of a step
        too.
        """
        self._abandoned.append(live.request.request_id)

    def close(self, *free: Callable[[], None]) -> None:
        """Take nothing more, and free what the engine stands on."""
        with self.turn():
            self.is_closed = True
            self._live.clear()
            for action in free:
                action()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The device is the caller's alone inside. Raises InvalidRequest when the model is
        closed.
        """
        with self._lock:
            if self.is_closed:
                raise InvalidRequest("this model is closed; load it again")
            try:
                yield
            except (KeyboardInterrupt, SystemExit):
                # They come in the midst of anything; a step that fails has committed nothing.
                self._start_over()
                raise

    def _start_over(self) -> None:
        for live in self._live.values():
            live.fail(GenerationFailed("the generation was interrupted; run it again"))
        self._live.clear()
        self._engine = self._make_engine()

    def _drop_abandoned(self) -> None:
        while self._abandoned:
            request_id = self._abandoned.popleft()
            if self._live.pop(request_id, None) is not None:
                self._engine.cancel(request_id)

    def _take(self, output: StepOutput) -> None:
        for started in output.started:
            self._of(started.request_id).num_cached_tokens = started.cached_tokens
        for token in output.tokens:
            live = self._of(token.request_id)
            if live.push(token):
                self._engine.cancel(token.request_id, token.choice)
            self._forget_ended(live)
        for failed in output.failed:
            live = self._of(failed.request_id)
            live.fail(failed.error.to_error())
            self._forget_ended(live)

    def _of(self, request_id: RequestId) -> LiveGeneration:
        live = self._live.get(request_id)
        if live is None:
            raise InternalError(f"the engine answered request {request_id}, which is not live")
        return live

    def _forget_ended(self, live: LiveGeneration) -> None:
        if live.has_ended:
            del self._live[live.request.request_id]
