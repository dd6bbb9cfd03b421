"""Makes an engine process, with a socket to talk to it and the page that it beats in.

Imports next to nothing: a server makes its first engine before it reads its own settings, so that
both processes import their modules at the same time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from rocmforge.clock import monotonic_s
from rocmforge.wire.beat import BeatPage

if TYPE_CHECKING:
    from rocmforge.config import EngineConfig, LogConfig

# -P: the directory the server was started in must not lend its modules to the engine.
ENGINE_COMMAND: Final = (sys.executable, "-P", "-m", "rocmforge.engine.worker")
_STDERR_FD: Final = 2
_DISCARD_TIMEOUT_S: Final = 5.0


class LaunchedEngine:
    """An engine process that somebody has to take over (EngineProcess.adopt) or `discard`.

    is_told: whether it has got its first message. is_adopted: whether somebody has taken it over.
    weights_fd: the weights store that it was given, which belongs to whoever launched it.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        connection: socket.socket,
        page: BeatPage,
        weights_fd: int | None = None,
    ) -> None:
        self.popen = popen
        self.connection = connection
        self.page = page
        self.weights_fd = weights_fd
        self.started_s = monotonic_s()
        self.is_told = self.is_adopted = False

    def tell(
        self, engine_config: EngineConfig, log_config: LogConfig, *, shares_weights: bool = False
    ) -> None:
        """Send the first message before the engine is taken over. That it is gone by now is not
        noticed here, but by who takes it over.
        """
        from rocmforge.wire.channel import encode_frame
        from rocmforge.wire.protocol import StartEngine

        self.is_told = True
        with contextlib.suppress(OSError):
            start = StartEngine(engine_config, log_config, shares_weights=shares_weights)
            self.connection.sendall(encode_frame(start))

    def discard(self) -> None:
        """Kill it and let go of everything: nobody will take it over."""
        kill_group(self.popen)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A process stuck in the kernel may outlive SIGKILL for a while.
            self.popen.wait(_DISCARD_TIMEOUT_S)
        self.connection.close()
        self.page.close()


def launch(
    command: Sequence[str] = ENGINE_COMMAND, *, weights_fd: int | None = None
) -> LaunchedEngine:
    """Start `command` with `--fd` and `--beat-fd` added, and `--weights-fd` where there is a
    weights store. Raises OSError when it cannot.

    To be called by the thread that will live longest: the engine asks the kernel to die with the
    thread that started it. It takes a few milliseconds (vfork).
    """
    with ExitStack() as undo:
        page = BeatPage.create()
        undo.callback(page.close)
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            fds = {"--fd": theirs.fileno(), "--beat-fd": page.fileno()}
            if weights_fd is not None:
                fds["--weights-fd"] = weights_fd
            popen = subprocess.Popen(
                [*command, *(word for name, fd in fds.items() for word in (name, str(fd)))],
                pass_fds=tuple(fds.values()),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=_STDERR_FD,
                stderr=_STDERR_FD,
            )
        undo.pop_all()
    return LaunchedEngine(popen, ours, page, weights_fd)


def kill_group(popen: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the engine and whatever it has started."""
    if popen.poll() is None:
        # It leads its own group, and is not reaped yet, so the number cannot be another's.
        os.killpg(popen.pid, signal.SIGKILL)
