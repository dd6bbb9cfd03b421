"""What is refused before any work is done, and how a prompt becomes token ids."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence

from rocmforge.errors import (
    ContextLengthExceeded,
    EngineNotInitialized,
    EngineRecovering,
    InvalidRequest,
    ModelLoading,
    QueueCapacityExceeded,
)
from rocmforge.request import Request, SamplingParams
from rocmforge.server.state import ServerState
from rocmforge.supervisor.client import EngineState

# Below this, tokenizing costs less than handing the text to a thread.
_INLINE_CHARS = 2000


def check_open(state: ServerState) -> None:
    """Refuse what the engine would refuse anyway, before templates and tokens are computed.

    Raises ModelLoading, EngineRecovering, EngineNotInitialized or QueueCapacityExceeded.
    """
    status = state.client.status
    if state.is_draining or status.state is EngineState.stopped:
        raise EngineNotInitialized("the server is stopping; send the request to another one")
    if status.state is EngineState.failed:
        why = status.last_error.message if status.last_error else "see the log"
        raise EngineNotInitialized(f"no model is loaded: {why}")
    if status.state is EngineState.circuit_open:
        seconds = status.circuit_closes_in_s or 0.0
        raise EngineRecovering(f"the engine keeps failing; the next attempt is in {seconds:.0f} s")
    if status.facts is None:
        phase = f" ({status.load_phase})" if status.load_phase else ""
        raise ModelLoading(f"the model is being loaded: {status.load_percent:.0f} %{phase}")
    most = state.config.max_live_requests
    if state.registry.n_live + state.n_arriving >= most:
        raise _full(state, "requests", f"{most} requests are live already; try again later")
    _check_tokens(state, 1)


@contextlib.contextmanager
def arriving(state: ServerState) -> Iterator[None]:
    """A request from its head until it is submitted: refused before its body is read, or counted,
    so that a crowd that uploads or is tokenized cannot pass the limit together.

    Raises what check_open raises.
    """
    check_open(state)
    state.n_arriving += 1
    try:
        yield
    finally:
        state.n_arriving -= 1


def check_room(state: ServerState, requests: Sequence[Request]) -> None:
    """Raises QueueCapacityExceeded when requests, now that their sizes are known, are too much."""
    _check_tokens(state, sum(request.expected_tokens(state.n_ctx) for request in requests))


def _check_tokens(state: ServerState, n_tokens: int) -> None:
    most, queued = state.config.overload.max_queued_tokens, state.registry.n_queued_tokens
    # A request alone is always served: only its context limits it.
    if queued and queued + n_tokens > most:
        raise _full(state, "tokens", f"{queued} tokens are queued already; try again later")


def _full(state: ServerState, reason: str, message: str) -> QueueCapacityExceeded:
    state.metrics.refused(reason)
    return QueueCapacityExceeded(message)


def drain_s(state: ServerState) -> float | None:
    """Seconds until there is probably room again; None when nothing is known about it."""
    return state.registry.seconds_until_room(
        state.config.max_live_requests, state.config.overload.max_queued_tokens
    )


async def encode(
    state: ServerState, text: str, *, parse_special: bool, param: str
) -> tuple[int, ...]:
    """The token ids of a prompt that fits.

    Raises ContextLengthExceeded, for a text that cannot fit without tokenizing it, or
    InvalidRequest for one that has no tokens.
    """
    tokenizer = state.model.tokenizer
    least = tokenizer.min_token_count(text)
    if least >= state.n_ctx:
        raise _too_long(least, state.n_ctx, param, at_least=True)
    if len(text) <= _INLINE_CHARS:
        ids = tokenizer.encode(text, parse_special=parse_special)
    else:
        ids = await asyncio.to_thread(tokenizer.encode, text, parse_special=parse_special)
    return check_prompt(state, ids, param)


def check_prompt(state: ServerState, ids: Sequence[int], param: str) -> tuple[int, ...]:
    """Token ids that leave room for at least one more.

    Raises ContextLengthExceeded, or InvalidRequest for none at all and for ids outside the
    vocabulary.
    """
    if not ids:
        raise InvalidRequest("the prompt is empty: it has no tokens", param=param)
    # First, so that a prompt of millions of ids costs nothing.
    if len(ids) >= state.n_ctx:
        raise _too_long(len(ids), state.n_ctx, param)
    _check_ids(state, ids, param)
    return tuple(ids)


def check_params(state: ServerState, params: SamplingParams) -> None:
    """Raises InvalidRequest for token ids that the model does not have: a bias or a stop on one
    would do nothing, in silence.
    """
    _check_ids(state, params.logit_bias, "logit_bias")
    _check_ids(state, params.stop_token_ids, "stop_token_ids")


def _check_ids(state: ServerState, ids: Iterable[int], param: str) -> None:
    n_vocab = state.model.tokenizer.n_vocab
    if not all(0 <= token_id < n_vocab for token_id in ids):
        raise InvalidRequest(f"{param}: token ids must be between 0 and {n_vocab - 1}", param=param)


def _too_long(
    n_tokens: int, n_ctx: int, param: str, *, at_least: bool = False
) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"context_length_exceeded: the prompt has {'at least ' if at_least else ''}{n_tokens} "
        f"tokens, and this model's context holds {n_ctx} with the answer; shorten the prompt",
        n_prompt_tokens=n_tokens,
        n_ctx=n_ctx,
        param=param,
    )
