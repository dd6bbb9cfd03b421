"""One engine process: started, connected, waited for, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from rocmforge.clock import monotonic_s
from rocmforge.wire.beat import BeatPage
from rocmforge.wire.channel import AsyncChannel

# -P: the directory the server was started in must not lend its modules to the engine.
ENGINE_COMMAND = (sys.executable, "-P", "-m", "rocmforge.engine.worker")
_STDERR_FD = 2
REAP_TIMEOUT_S = 10.0


class EngineProcess:
    """A started engine with its channel and its beat page; `close` it in any case.

    The engine runs in a session of its own, so that Ctrl-C reaches only the server, and writes its
    log to the server's stderr.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], channel: AsyncChannel, page: BeatPage
    ) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.channel = channel
        self.page = page
        self.started_s = monotonic_s()
        self.exited = asyncio.Event()
        # A thread, because the loop must not wait, and because it works under every event loop
        # and beside any other library's child watcher.
        waiter = threading.Thread(
            target=self._wait, args=(asyncio.get_running_loop(),), name="engine-wait", daemon=True
        )
        waiter.start()

    @classmethod
    async def start(cls, command: Sequence[str]) -> EngineProcess:
        """Start `command` with `--fd` and `--beat-fd` added. Raises OSError when it cannot."""
        with ExitStack() as undo:
            page = BeatPage.create()
            undo.callback(page.close)
            ours, theirs = socket.socketpair()
            with theirs:
                undo.callback(ours.close)
                channel = await AsyncChannel.open(ours)
                undo.callback(channel.abort)
                # Started from the loop's own thread: the engine asks the kernel to die with the
                # thread that started it. It takes a few milliseconds (vfork).
                fds = (theirs.fileno(), page.fileno())
                popen = subprocess.Popen(
                    [*command, "--fd", str(fds[0]), "--beat-fd", str(fds[1])],
                    pass_fds=fds,
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=_STDERR_FD,
                    stderr=_STDERR_FD,
                )
            undo.pop_all()
        return cls(popen, channel, page)

    @property
    def returncode(self) -> int | None:
        """As `subprocess` has it: an exit code, minus a signal, or None while it runs."""
        return self._popen.returncode

    def kill(self) -> None:
        """SIGKILL to the engine and whatever it has started."""
        if self._popen.poll() is None:
            # It leads its own group, and is not reaped yet, so the number cannot be another's.
            os.killpg(self.pid, signal.SIGKILL)

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
