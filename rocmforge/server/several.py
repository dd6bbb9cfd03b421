"""Several generations read as one: a request with a list of prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from rocmforge.errors import RocmForgeError
from rocmforge.request import Usage
from rocmforge.server.generation import ChoiceDelta, Generation


class Several:
    """An async iterator over (index of the generation, its next deltas), in order of arrival.

    All are started, or none: when one is refused, those before it are cancelled. The first failure
    ends the iteration.
    """

    def __init__(self, starts: Sequence[Callable[[], Generation]]) -> None:
        self._generations: list[Generation] = []
        self.n_generations = len(starts)
        self._readers: list[asyncio.Task[None]] = []
        self._queue: asyncio.Queue[tuple[int, list[ChoiceDelta]] | Exception | None]
        self._queue = asyncio.Queue(maxsize=64)
        for start in starts:
            try:
                self._generations.append(start())
            except RocmForgeError:
                for generation in self._generations:
                    generation.abandon()
                raise

    async def __aiter__(self) -> AsyncIterator[tuple[int, list[ChoiceDelta]]]:
        if self.n_generations == 1:
            async for deltas in self._generations[0]:
                yield 0, deltas
            return
        self._readers = [
            asyncio.create_task(self._read(i, generation))
            for i, generation in enumerate(self._generations)
        ]
        n_open = self.n_generations
        while n_open:
            item = await self._queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                n_open -= 1
            else:
                yield item

    async def _read(self, index: int, generation: Generation) -> None:
        try:
            async for deltas in generation:
                await self._queue.put((index, deltas))
            await self._queue.put(None)
        except Exception as error:  # noqa: BLE001  # carried to the reader of this iterator
            await self._queue.put(error)

    async def aclose(self) -> None:
        """Cancel what still runs; safe to call at any time, more than once."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for generation in self._generations:
            await generation.aclose()

    def usage(self) -> Usage:
        """Token counts over all."""
        usages = [generation.usage() for generation in self._generations]
        return Usage(
            prompt_tokens=sum(u.prompt_tokens for u in usages),
            completion_tokens=sum(u.completion_tokens for u in usages),
            cached_tokens=sum(u.cached_tokens for u in usages),
        )
