"""One engine process as the event loop sees it: connected, waited for, killed."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack

from rocmforge.supervisor.launch import LaunchedEngine, kill_group
from rocmforge.wire.channel import AsyncChannel

REAP_TIMEOUT_S = 10.0


class EngineProcess:
    """A started engine with its channel and its beat page; `close` it in any case.

    The engine runs in a session of its own, so that Ctrl-C reaches only the server, and writes its
    log to the server's stderr.
    """

    def __init__(self, launched: LaunchedEngine, channel: AsyncChannel) -> None:
        self._popen = launched.popen
        self.pid = launched.popen.pid
        self.channel = channel
        self.page = launched.page
        self.started_s = launched.started_s
        self.is_told = launched.is_told
        self.exited = asyncio.Event()
        # A thread, because the loop must not wait, and because it works under every event loop
        # and beside any other library's child watcher.
        waiter = threading.Thread(
            target=self._wait, args=(asyncio.get_running_loop(),), name="engine-wait", daemon=True
        )
        waiter.start()

    @classmethod
    async def adopt(cls, launched: LaunchedEngine) -> EngineProcess:
        """Take over an engine that was launched. Raises OSError when its socket cannot be used; it
        is discarded then."""
        launched.is_adopted = True
        with ExitStack() as undo:
            undo.callback(launched.discard)
            channel = await AsyncChannel.open(launched.connection)
            undo.pop_all()
        return cls(launched, channel)

    @property
    def returncode(self) -> int | None:
        """As `subprocess` has it: an exit code, minus a signal, or None while it runs."""
        return self._popen.returncode

    def kill(self) -> None:
        """SIGKILL to the engine and whatever it has started."""
        kill_group(self._popen)

    async def wait_exit(self, timeout_s: float) -> bool:
        """Wait for its end; False on a time-out."""
        try:
            await asyncio.wait_for(self.exited.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Kill it if it still runs, reap it, and let go of channel and page."""
        self.kill()
        try:
            # A process stuck in the kernel may outlive SIGKILL for a while: do not wait for ever.
            await self.wait_exit(REAP_TIMEOUT_S)
        finally:
            self.page.close()
            await self.channel.close()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._popen.wait()
        try:
            loop.call_soon_threadsafe(self.exited.set)
        except RuntimeError:
            # The loop has been closed: nobody waits any more.
            return
