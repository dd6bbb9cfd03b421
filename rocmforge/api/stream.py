"""A generation that is read while it grows, and many that run at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from rocmforge.api.generation import GenerationDelta, GenerationResult
from rocmforge.api.session import EngineSession, LiveGeneration
from rocmforge.request import Request


class GenerationStream(Iterator[GenerationDelta]):
    """Iterate over it for one GenerationDelta per token; `close`, the end of a `with` block, or
    letting go of it cancels what is left.
    """

    def __init__(self, session: EngineSession, live: LiveGeneration) -> None:
        self._session = session
        self._live = live
        self._is_closed = False

    def __next__(self) -> GenerationDelta:
        """The next token's delta. Raises what the generation fails with."""
        while not self._is_closed:
            # Asked first: what ends a generation is put down before it is marked as ended.
            has_ended = self._live.has_ended
            delta = self.poll()
            if delta is not None:
                return delta
            if has_ended:
                break
        raise StopIteration

    def poll(self) -> GenerationDelta | None:
        """The next delta, after one step of the engine at most; None when there is none yet, or
        none any more (see has_ended). Raises what the generation fails with.
        """
        if self._is_closed:
            return None
        if not self._live.unread and not self._live.has_ended:
            self._session.step(self._live)
        if self._live.unread:
            return self._live.unread.popleft()
        if self._live.error is not None:
            self._is_closed = True
            raise self._live.error
        return None

    def result(self) -> GenerationResult:
        """All of the generation, once it has been read to its end.

        Raises InvalidRequest before, and the error that it failed with.
        """
        return self._live.result()

    def finish(self) -> GenerationResult:
        """Read to the end; the result. Raises what the generation fails with."""
        with self:
            for _ in self:
                pass
            return self.result()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be generated; `poll` may still have deltas."""
        return self._is_closed or self._live.has_ended

    def close(self) -> None:
        """Read no more; what is left is cancelled."""
        if not self._is_closed:
            self._is_closed = True
            if not self._live.has_ended:
                self._session.abandon(self._live)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def run_batch(
    requests: Sequence[Request], submit: Callable[[Request], GenerationStream], batch_size: int
) -> list[GenerationResult]:
    """Run all requests, as many at once as fill a batch; their results in order.

    Raises what the first one to fail fails with; the others are cancelled.
    """
    streams: list[GenerationStream] = []
    running: list[tuple[GenerationStream, int]] = []
    try:
        for request in requests:
            n = request.params.n
            while running and n + sum(width for _, width in running) > batch_size:
                next(running[0][0], None)
                running = [(stream, width) for stream, width in running if not stream.has_ended]
            streams.append(submit(request))
            running.append((streams[-1], n))
        return [stream.finish() for stream in streams]
    finally:
        for stream in streams:
            stream.close()
