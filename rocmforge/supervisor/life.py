"""One engine process from its first message to its end, and why it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from rocmforge.config import SupervisorConfig
from rocmforge.errors import EngineRecovering, RocmForgeError
from rocmforge.supervisor.beat_watch import BeatWatch
from rocmforge.supervisor.crash_report import CrashCause, describe_exit
from rocmforge.supervisor.process import EngineProcess
from rocmforge.wire.channel import ChannelClosed, ChannelError
from rocmforge.wire.protocol import EngineFailed, EngineReady, FromEngine, StartEngine

# How long an engine may take to leave once its socket is closed or it was told to.
LEAVE_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True)
class Ending:
    """Why a life ended. `error` is what clients and operators are told."""

    cause: CrashCause
    detail: str
    error: RocmForgeError


class EngineLife:
    """Reads the engine's messages and watches its pulse until it ends in one way or another.

    `handle` is awaited for every message, in order.
    """

    def __init__(
        self,
        process: EngineProcess,
        config: SupervisorConfig,
        handle: Callable[[FromEngine], Awaitable[None]],
    ) -> None:
        self.process = process
        self.watch = BeatWatch(process.page, 2 * _look_interval_s(config))
        self.is_serving = False
        self._config = config
        self._handle = handle

    async def run(self, start: StartEngine) -> Ending:
        """Send `start`, unless the engine was told when it was launched, and live. The process may
        still run when this returns."""
        if not self.process.is_told:
            self.process.channel.send(start)
        reading = asyncio.create_task(self._read())
        watching = asyncio.create_task(self._look_for_hang())
        leaving = asyncio.create_task(self.process.exited.wait())
        tasks: set[asyncio.Task[Ending] | asyncio.Task[bool]] = {reading, watching, leaving}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if leaving in done:
                # What it sent before it died is read to the end: it may say why.
                await asyncio.wait({reading}, timeout=LEAVE_TIMEOUT_S)
            if reading.done():
                return reading.result()
            if watching.done():
                return watching.result()
            return _ending(CrashCause.disconnected, "the engine ended, its socket is still open")
        finally:
            for task in tasks:
                task.cancel()

    async def autopsy(self, ending: Ending) -> Ending:
        """A closed socket is only a symptom: ask how the process ended, waiting for it a little."""
        if ending.cause is not CrashCause.disconnected:
            return ending
        if not await self.process.wait_exit(LEAVE_TIMEOUT_S):
            return ending
        code, signal_name = describe_exit(self.process.returncode)
        if signal_name is not None:
            return _ending(CrashCause.killed, f"the engine died of {signal_name}")
        return _ending(CrashCause.exited, f"the engine ended with exit code {code}")

    async def _read(self) -> Ending:
        try:
            while True:
                for message in await self.process.channel.receive():
                    if isinstance(message, EngineFailed):
                        await self._handle(message)
                        error = message.error.to_error()
                        return Ending(CrashCause.failed, error.message, error)
                    self.watch.reset()
                    await self._handle(message)
                    self.is_serving = self.is_serving or isinstance(message, EngineReady)
        except ChannelClosed as error:
            return _ending(CrashCause.disconnected, error.message)
        except ChannelError as error:
            return _ending(CrashCause.babbling, f"the engine babbles: {error.message}")

    async def _look_for_hang(self) -> Ending:
        config = self._config
        while True:
            await asyncio.sleep(_look_interval_s(config))
            limit = config.hang_timeout_s if self.is_serving else config.load_timeout_s
            if (still_s := self.watch.look()) > limit:
                doing = self.process.page.phase.name
                detail = f"the engine gave no sign of life for {still_s:.1f} s while {doing}"
                return _ending(CrashCause.hung, detail)


def _ending(cause: CrashCause, detail: str) -> Ending:
    return Ending(cause, detail, EngineRecovering(detail))


def _look_interval_s(config: SupervisorConfig) -> float:
    return min(1.0, max(0.02, min(config.hang_timeout_s, config.load_timeout_s) / 10))
