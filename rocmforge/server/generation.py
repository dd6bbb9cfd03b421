"""From token ids to text events: what all generating routes share.

    generation = Generation(state, request, route="/v1/completions", continuation=True)
    async for deltas in generation: ...       # what came meanwhile; nothing is a sign of life
    generation.usage()

A Generation submits when it is made, so that what the engine refuses is known before the response
begins, and is closed (`aclose`, or the end of the iteration) exactly once: a client that left costs
nothing more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import msgspec

from rocmforge.clock import monotonic_s
from rocmforge.errors import RocmForgeError
from rocmforge.observe.log import get_logger
from rocmforge.request import FinishReason, Request, RequestState, TokenLogprob, Usage
from rocmforge.server.registry import RequestRecord
from rocmforge.server.state import ServerState
from rocmforge.supervisor.client import Recovering, RequestHandle
from rocmforge.supervisor.handle import RequestEvent
from rocmforge.text.detokenizer import Detokenizer, TextDelta
from rocmforge.wire.protocol import RequestStarted, TokenOutput

_log = get_logger(__name__)


class TokenText(msgspec.Struct, frozen=True):
    """A token whose text is out. offset: characters of the choice's text before it."""

    token_id: int
    offset: int
    logprob: float | None
    top_logprobs: tuple[TokenLogprob, ...]


class ChoiceDelta(msgspec.Struct, frozen=True):
    """What one engine token brought. text: what became certain. token_id: the token itself. tokens:
    those whose text is now complete (their log-probabilities may be told). finish_reason: set on
    the choice's last delta."""

    choice: int
    text: str
    token_id: int
    tokens: tuple[TokenText, ...]
    finish_reason: FinishReason | None


class _Choice:
    """One choice's text and the log-probabilities of its tokens not told yet."""

    def __init__(self, detokenizer: Detokenizer) -> None:
        self._detokenizer = detokenizer
        self._logprobs: dict[int, tuple[float | None, tuple[TokenLogprob, ...]]] = {}
        self._n_pushed = 0
        self.token_ids: list[int] = []
        self.is_finished = False

    def take(self, output: TokenOutput) -> ChoiceDelta:
        """The delta of one token; sets `is_finished` at a stop string or the engine's last."""
        delta = TextDelta("")
        if output.finish_reason is not FinishReason.stop:  # else EOS: not part of the text
            self._logprobs[self._n_pushed] = (output.logprob, output.top_logprobs or ())
            self._n_pushed += 1
            self.token_ids.append(output.token_id)
            delta = self._detokenizer.push(output.token_id)
        text, tokens = delta.text, self._told(delta)
        reason = FinishReason.stop if delta.stopped else output.finish_reason
        if reason is not None and not delta.stopped:
            rest = self._detokenizer.flush()
            text, tokens = text + rest.text, tokens + self._told(rest)
            reason = FinishReason.stop if rest.stopped else reason
        self.is_finished = reason is not None
        return ChoiceDelta(output.choice, text, output.token_id, tokens, reason)

    def _told(self, delta: TextDelta) -> tuple[TokenText, ...]:
        return tuple(
            [
                TokenText(span.token_id, span.start, *self._logprobs.pop(span.index))
                for span in delta.tokens
            ]
        )


class Generation:
    """One request on its way: an async iterator over the ChoiceDeltas that came since the last
    ones were read, in order. An empty list says that the engine is being replaced and the stream
    will go on."""

    def __init__(
        self, state: ServerState, request: Request, *, route: str, continuation: bool
    ) -> None:
        """Submit. Raises what EngineClient.submit raises."""
        tokenizer, params = state.model.tokenizer, request.params
        self._state = state
        self._choices = [
            _Choice(Detokenizer(tokenizer, params.stop, continuation=continuation))
            for _ in range(params.n)
        ]
        self._handle: RequestHandle = state.client.submit(request)
        self.record = RequestRecord(
            request.request_id,
            route,
            params.n,
            len(request.prompt_ids),
            request.expected_tokens(state.n_ctx),
            handle=self._handle,
        )
        self.cached_tokens = 0
        self._start_s = monotonic_s()
        self._queue_wait_s = 0.0
        self._first_s: float | None = None
        self._last_s = self._start_s
        state.registry.add(self.record)
        state.metrics.request_started(len(request.prompt_ids))
        self._events = self._run()

    def __aiter__(self) -> AsyncIterator[list[ChoiceDelta]]:
        return self._events

    async def aclose(self) -> None:
        """Cancel what still runs; does nothing after the end."""
        await self._events.aclose()
        self.abandon()

    def abandon(self) -> None:
        """Cancel a generation that nobody iterates; does nothing after the end."""
        if self.record.ended_s is None:
            self._handle.cancel()
            self._end(RequestState.Cancelled)

    def token_ids(self, choice: int) -> list[int]:
        """The tokens of a choice's text so far."""
        return self._choices[choice].token_ids

    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(
            prompt_tokens=self.record.n_prompt_tokens,
            completion_tokens=self.record.n_tokens,
            cached_tokens=self.cached_tokens,
        )

    async def _run(self) -> AsyncGenerator[list[ChoiceDelta], None]:
        record, state = self.record, RequestState.Cancelled
        try:
            with self._handle as handle:
                while events := await handle.take():
                    deltas = self._deltas(events)
                    if deltas or any(isinstance(event, Recovering) for event in events):
                        yield deltas
            # Cancelled by /cancel, the stream just ends: say so.
            state = RequestState.Completed if self._is_complete() else RequestState.Cancelled
            if cancelled := self._cancelled_deltas():
                yield cancelled
        except RocmForgeError as error:
            record.error, state = error, RequestState.Failed
            raise
        finally:
            self._end(state)

    def _deltas(self, events: Sequence[RequestEvent]) -> list[ChoiceDelta]:
        deltas, now_s = [], monotonic_s()
        for event in events:
            if isinstance(event, TokenOutput):
                choice = self._choices[event.choice]
                # Behind a stop string, tokens may still be under way.
                if not choice.is_finished:
                    deltas.append(self._take(choice, event, now_s))
            elif isinstance(event, RequestStarted):
                self._started(event)
            else:
                self.record.n_restarts = event.n_restarts
        return deltas

    def _started(self, event: RequestStarted) -> None:
        if self.record.state is RequestState.Pending:
            self.cached_tokens = event.cached_tokens
            self._queue_wait_s = event.queue_wait_s
            self._state.metrics.queue_wait(event.queue_wait_s)
        self.record.state = RequestState.Processing

    def _take(self, choice: _Choice, output: TokenOutput, now_s: float) -> ChoiceDelta:
        delta = choice.take(output)
        self.record.n_tokens += 1
        self.record.texts.setdefault(output.choice, []).append(delta.text)
        self._measure(now_s)
        if delta.finish_reason is not None:
            self.record.finish_reasons[output.choice] = delta.finish_reason
            if output.finish_reason is None:  # a stop string: the engine does not know
                self._handle.cancel(output.choice)
        return delta

    def _measure(self, now_s: float) -> None:
        if self._first_s is None:
            self._first_s = now_s
            self._state.metrics.first_token(now_s - self._start_s)
        else:
            self._state.metrics.next_token(now_s - self._last_s)
        self._last_s = now_s

    def _is_complete(self) -> bool:
        return all(choice.is_finished for choice in self._choices)

    def _cancelled_deltas(self) -> list[ChoiceDelta]:
        """The last delta of each choice that was cut off."""
        deltas = []
        for index, choice in enumerate(self._choices):
            if not choice.is_finished:
                self.record.finish_reasons[index] = FinishReason.cancelled
                deltas.append(ChoiceDelta(index, "", -1, (), FinishReason.cancelled))
        return deltas

    def _end(self, state: RequestState) -> None:
        if self.record.ended_s is not None:
            return
        self._state.registry.end(self.record, state)
        now_s = monotonic_s()
        prefill_s = decode_s = None
        if self._first_s is not None:
            # Two clocks in two processes: the difference of two short times may be below zero.
            prefill_s = max(0.0, self._first_s - self._start_s - self._queue_wait_s)
            decode_s = now_s - self._first_s
        self._state.metrics.request_ended(
            str(state),
            total_s=now_s - self._start_s,
            prefill_s=prefill_s,
            decode_s=decode_s,
        )
        _log.info(
            "request_ended",
            request_id=self.record.request_id,
            state=str(state),
            route=self.record.route,
            n_prompt_tokens=self.record.n_prompt_tokens,
            n_tokens=self.record.n_tokens,
            n_restarts=self.record.n_restarts,
            error=self.record.error.message if self.record.error else None,
            total_s=round(now_s - self._start_s, 4),
        )
