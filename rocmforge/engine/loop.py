"""The engine process's loop, between the channel and the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rocmforge.clock import monotonic_s
from rocmforge.engine.engine import Engine
from rocmforge.errors import RocmForgeError
from rocmforge.observe.log import get_logger
from rocmforge.request import Request
from rocmforge.wire.beat import BeatPage, EnginePhase
from rocmforge.wire.channel import BlockingChannel, ChannelError
from rocmforge.wire.protocol import (
    Cancel,
    Heartbeat,
    RequestFailed,
    Shutdown,
    StartEngine,
    StepOutput,
    Submit,
    ToEngine,
    WireError,
)

IDLE_BEAT_S: Final = 0.1
HEARTBEAT_S: Final = 1.0
_log = get_logger(__name__)


class EngineLoop:
    """Take messages, run a step, send one message with all that it produced."""

    def __init__(self, channel: BlockingChannel, page: BeatPage, engine: Engine) -> None:
        self._channel = channel
        self._page = page
        self._engine = engine
        self._spoke_s = monotonic_s()

    def run(self, early: Sequence[ToEngine] = ()) -> int:
        """Serve until Shutdown; the exit code. Raises what a step raises, and ChannelClosed.
        `early`: messages that came with the first.
        """
        leaving = self._take(early)
        while not leaving:
            self._page.beat()
            timeout_s = 0.0 if self._engine.has_work else IDLE_BEAT_S
            leaving = self._take(self._channel.receive(timeout_s))
            if self._engine.has_work:
                self._say(self._engine.step())
            elif monotonic_s() - self._spoke_s >= HEARTBEAT_S:
                self._say(Heartbeat(stats=self._engine.stats()))
        self._page.phase = EnginePhase.stopping
        return 0

    def _take(self, messages: Sequence[ToEngine]) -> bool:
        """Act on messages in order; True when it is time to leave."""
        for message in messages:
            match message:
                case Submit(request=request):
                    self._submit(request)
                case Cancel(request_id=request_id, choice=choice):
                    self._engine.cancel(request_id, choice)
                case Shutdown():
                    return True
                case StartEngine():
                    raise ChannelError("an engine is started once")
        return False

    def _submit(self, request: Request) -> None:
        try:
            self._engine.submit(request)
        except RocmForgeError as error:
            _log.info("request_refused", request_id=request.request_id, error=error.message)
            failed = RequestFailed(request_id=request.request_id, error=WireError.of(error))
            self._say(StepOutput(failed=(failed,), stats=self._engine.stats()))

    def _say(self, message: StepOutput | Heartbeat) -> None:
        self._spoke_s = monotonic_s()
        self._channel.send(message)
