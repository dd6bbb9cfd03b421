"""From a request to its sequences, after checking what only the engine knows."""

from __future__ import annotations

from collections.abc import Callable

from rocmforge.engine.sequence import Sequence
from rocmforge.errors import ContextLengthExceeded, InvalidRequest
from rocmforge.request import Request


def check_request(request: Request, n_vocab: int, n_ctx: int) -> None:
    """Raises InvalidRequest (naming the field) or ContextLengthExceeded when the request can never
    be served by a model of `n_vocab` tokens with `n_ctx` positions.
    """
    if not request.prompt_ids:
        raise InvalidRequest("the prompt has no tokens", param="prompt")
    _check_ids(request.prompt_ids, n_vocab, "prompt")
    if len(request.prompt_ids) >= n_ctx:
        raise ContextLengthExceeded(
            f"context_length_exceeded: the prompt has {len(request.prompt_ids)} tokens, and the "
            f"context holds {n_ctx}, prompt and answer together; shorten the prompt",
            n_prompt_tokens=len(request.prompt_ids),
            n_ctx=n_ctx,
            param="prompt",
        )
    n = request.params.n
    if request.generated and len(request.generated) != n:
        raise InvalidRequest(
            f"generated has {len(request.generated)} choices, expected n = {n}", param="generated"
        )
    if any(not 0 <= choice < n for choice in request.finished):
        raise InvalidRequest(f"finished names a choice outside 0 to {n - 1}", param="finished")
    if not unfinished(request):
        raise InvalidRequest("every choice has finished: nothing is to be run", param="finished")
    for choice in unfinished(request):
        _check_generated(request, choice, n_vocab, n_ctx)


def unfinished(request: Request) -> list[int]:
    """The choices that are to be run."""
    return [choice for choice in range(request.params.n) if choice not in request.finished]


def generated_ids(request: Request, choice: int) -> tuple[int, ...]:
    """What the choice had before a restart."""
    return request.generated[choice] if request.generated else ()


def make_sequences(
    request: Request, make: Callable[[int, tuple[int, ...], Sequence | None], Sequence]
) -> list[Sequence]:
    """One sequence for each unfinished choice, by `make(choice, generated, leader)`; the first one
    leads the others, which share its prompt blocks.
    """
    sequences: list[Sequence] = []
    for choice in unfinished(request):
        leader = sequences[0] if sequences else None
        sequences.append(make(choice, generated_ids(request, choice), leader))
    return sequences


def _check_generated(request: Request, choice: int, n_vocab: int, n_ctx: int) -> None:
    """A choice that goes on must have room to go on."""
    ids = generated_ids(request, choice)
    _check_ids(ids, n_vocab, "generated")
    max_tokens = request.params.max_tokens
    if max_tokens is not None and len(ids) >= max_tokens:
        raise InvalidRequest(
            f"choice {choice} has {len(ids)} tokens of max_tokens = {max_tokens} already: "
            "list it in finished",
            param="generated",
        )
    if len(request.prompt_ids) + len(ids) >= n_ctx:
        raise ContextLengthExceeded(
            f"context_length_exceeded: prompt and generated have "
            f"{len(request.prompt_ids) + len(ids)} tokens, and the context holds {n_ctx}",
            n_prompt_tokens=len(request.prompt_ids),
            n_ctx=n_ctx,
            param="generated",
        )


def _check_ids(ids: tuple[int, ...], n_vocab: int, param: str) -> None:
    if ids and not (min(ids) >= 0 and max(ids) < n_vocab):
        wrong = next(i for i in ids if not 0 <= i < n_vocab)
        raise InvalidRequest(
            f"token id {wrong} is outside the model's vocabulary of {n_vocab}", param=param
        )
