"""Keeps one engine alive: starts it, watches it, replaces it, and hands the journal to the next.

    one life:  start → StartEngine → LoadProgress* → EngineReady → resume the journal → serve
    its end:   socket closed · garbage · counters stand still · EngineFailed
    after it:  kill, reap, report → wait (back-off) → next life, or open the circuit

All of it runs in the server's event loop, so the journal and the handles need no locks.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from rocmforge.clock import monotonic_s, unix_s
from rocmforge.config import EngineConfig, LogConfig, SupervisorConfig
from rocmforge.errors import (
    BackendInitializationFailed,
    CacheCapacityExceeded,
    EngineNotInitialized,
    EngineRecovering,
    ErrorCategory,
    GpuDeviceNotFound,
    HipError,
    InternalError,
    RocmForgeError,
)
from rocmforge.observe.log import get_logger
from rocmforge.supervisor.crash_report import CrashCause, CrashReport, describe_exit
from rocmforge.supervisor.delivery import Delivery
from rocmforge.supervisor.journal import Journal, JournalEntry
from rocmforge.supervisor.launch import ENGINE_COMMAND, LaunchedEngine, launch
from rocmforge.supervisor.life import LEAVE_TIMEOUT_S, Ending, EngineLife
from rocmforge.supervisor.process import EngineProcess
from rocmforge.supervisor.restart_policy import RestartPolicy
from rocmforge.supervisor.status import EngineState, EngineStatus, sum_counters
from rocmforge.supervisor.weights_keeper import WeightsKeeper
from rocmforge.wire.beat import EnginePhase
from rocmforge.wire.protocol import (
    EngineFacts,
    EngineFailed,
    EngineReady,
    EngineStats,
    FromEngine,
    Heartbeat,
    LoadProgress,
    Shutdown,
    StartEngine,
    StepOutput,
    ToEngine,
)

_log = get_logger(__name__)

# Requests resubmitted without giving the event loop a turn: a long prompt packs in about 1 ms.
_RESUME_BATCH: Final = 4
_N_CRASH_REPORTS: Final = 32
_HOPELESS: Final = (ErrorCategory.User, ErrorCategory.Model)
# Nor does waiting give a machine another device, or more memory than it has.
_HOPELESS_ERRORS: Final = (BackendInitializationFailed, GpuDeviceNotFound, CacheCapacityExceeded)


class Supervisor:
    """The engine's state machine (`EngineState`) and its one task.

    delivery: the traffic of the requests.
    """

    def __init__(
        self,
        engine_config: EngineConfig,
        config: SupervisorConfig,
        journal: Journal,
        *,
        log_config: LogConfig | None = None,
        command: Sequence[str] = ENGINE_COMMAND,
        launched: LaunchedEngine | None = None,
    ) -> None:
        """launched: the first engine, if there is one already."""
        self._start_message = StartEngine(
            config=engine_config,
            log=log_config or LogConfig(),
            shares_weights=config.shared_weights,
        )
        first_fd = launched.weights_fd if launched else None
        self._weights = WeightsKeeper(engine_config.model_path, first_fd)
        self._config = config
        self._journal = journal
        self._command = command
        self._launched = launched
        self._policy = RestartPolicy(config)
        self.delivery = Delivery(journal, self._send)
        self._life: EngineLife | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._state = EngineState.stopped
        self._facts: EngineFacts | None = None
        self._load = LoadProgress(phase="", percent=0.0)
        self._stats = EngineStats()
        self._stats_before = EngineStats()
        self._n_tokens_before = 0
        self._n_resumed = 0
        self._restarts: Counter[str] = Counter()
        self._crashes: deque[CrashReport] = deque(maxlen=_N_CRASH_REPORTS)
        self._last_error: RocmForgeError | None = None
        self._retry_at_s: float | None = None

    # ------------------------------------------------------------------ for the client

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life."""
        return self._state

    @property
    def facts(self) -> EngineFacts | None:
        """What the last ready engine said of itself; None when none ever was."""
        return self._facts

    @property
    def last_error(self) -> RocmForgeError | None:
        """Why the engine failed last."""
        return self._last_error

    @property
    def retry_in_s(self) -> float | None:
        """Seconds until an open circuit lets the next engine start; None when it is not open."""
        if self._retry_at_s is None:
            return None
        return max(0.0, self._retry_at_s - monotonic_s())

    def status(self) -> EngineStatus:
        """A snapshot of everything."""
        return EngineStatus(
            state=self._state,
            facts=self._facts,
            load_phase=self._load.phase,
            load_percent=self._load.percent,
            pid=self._life.process.pid if self._life else None,
            restarts_total=self._restarts.total(),
            restarts_by_cause=dict(self._restarts),
            requests_resumed_total=self._n_resumed,
            n_live=len(self._journal),
            stats=sum_counters(self._stats_before, self._stats),
            beat_age_s=self._life.watch.look() if self._life else None,
            circuit_closes_in_s=self.retry_in_s,
            last_error=self._last_error,
            crashes=tuple(self._crashes),
        )

    async def start(self) -> None:
        """Start the engine and return at once; `wait_ready` waits for it."""
        assert self._task is None, "start() is called once"
        self._become(EngineState.starting)
        self._task = asyncio.create_task(self._run(), name="supervisor")
        self._task.add_done_callback(self._task_ended)

    async def wait_ready(self, timeout_s: float | None = None) -> EngineFacts:
        """Wait until the engine serves.

        Raises what made the load impossible, EngineNotInitialized once stopped, or TimeoutError.
        """

        decided = (EngineState.ready, EngineState.failed, EngineState.stopped)
        async with asyncio.timeout(timeout_s):
            while self._state not in decided:
                await self._changed.wait()
        if self._state is EngineState.ready and self._facts is not None:
            return self._facts
        raise self._last_error or EngineNotInitialized("the engine has been stopped")

    async def close(self) -> None:
        """Tell the engine to leave, kill it if it does not, and fail whatever is still live."""
        life, task = self._life, self._task
        if life is not None and self._state is EngineState.ready:
            life.process.channel.send(Shutdown())
            self._become(EngineState.stopped)
            await life.process.wait_exit(LEAVE_TIMEOUT_S)
        while task is not None and not task.done():
            # Again and again: a cancel that comes together with what was awaited may get lost.
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
        self._weights.close()
        self.delivery.fail_all(
            EngineNotInitialized("the server is stopping; send the request again")
        )
        self._become(EngineState.stopped)

    def submit(self, entry: JournalEntry) -> None:
        """Give a journalled request to the engine; before it is ready the journal keeps it.

        Raises ChannelError when the request is larger than a frame.
        """
        if self._state is EngineState.ready:
            self.delivery.submit(entry)

    # ------------------------------------------------------------------ one life after another

    async def _run(self) -> None:
        while True:
            ending = await self._one_life()
            if self._state is EngineState.stopped:
                return
            self._last_error = ending.error
            if self._is_hopeless(ending):
                self.delivery.fail_all(
                    EngineNotInitialized(f"the model cannot be loaded: {ending.detail}")
                )
                self._become(EngineState.failed)
                return
            self._restarts[str(ending.cause)] += 1
            self.delivery.fail_repeat_victims(self._config.max_restarts)
            delay = self._policy.delay_s()
            if delay is None:
                await self._open_circuit()
            else:
                _log.warning("engine_restart", delay_s=delay, fruitless=self._policy.n_fruitless)
                await asyncio.sleep(delay)

    async def _one_life(self) -> Ending:
        self._load = LoadProgress(phase="", percent=0.0)
        self._n_tokens_before = self.delivery.n_tokens
        try:
            launched, self._launched = self._launched, None
            if launched is None:
                shares = self._config.shared_weights
                weights_fd = self._weights.fd_for_next_life() if shares else None
                launched = launch(self._command, weights_fd=weights_fd)
            process = await EngineProcess.adopt(launched)
        except OSError as error:
            why = EngineNotInitialized(f"the engine process cannot be started: {error}")
            ending = Ending(CrashCause.not_started, why.message, why)
            self._become(EngineState.recovering)
            self._report(ending, None)
            return ending
        age_ms = round((monotonic_s() - process.started_s) * 1000, 1)
        _log.info("engine_started", pid=process.pid, age_ms=age_ms)
        self._life = life = EngineLife(process, self._config, self._handle)
        try:
            ending = await life.run(self._next_start())
            if self._state is not EngineState.stopped:
                # From here on requests only join the journal.
                self._become(EngineState.recovering)
            ending = await life.autopsy(ending)
            if self._state is not EngineState.stopped:
                self._report(ending, life)
        finally:
            # Nobody may use it from here on, though closing takes a while.
            self._life = None
            self._stats_before = sum_counters(self._stats_before, self._stats)
            self._stats = EngineStats()
            await process.close()
        return ending

    def _next_start(self) -> StartEngine:
        """The first message to the engine that starts now.

        Every life after the first that was ready gets its sizes: with the memory that is free then
        the cache would be another, and an answer would end elsewhere or could not be resumed.
        """
        start, facts = self._start_message, self._facts
        # Sizes that no engine can have come from a mad one.
        if facts is None or facts.kv_bytes < 1 or facts.n_ctx < 1:
            return start
        config = start.config
        cache = replace(config.cache, kv_bytes=facts.kv_bytes)
        pinned = replace(config, cache=cache, max_sequence_length=facts.n_ctx)
        return msgspec.structs.replace(start, config=pinned, is_replacement=True)

    async def _open_circuit(self) -> None:
        open_s = self._config.circuit_open_s
        self._retry_at_s = monotonic_s() + open_s
        self._become(EngineState.circuit_open)
        _log.error("engine_circuit_open", retry_in_s=open_s, fruitless=self._policy.n_fruitless)
        assert self._last_error is not None, "the circuit opens after a death"
        self.delivery.fail_all(
            EngineRecovering(
                f"the engine was restarted {self._policy.n_fruitless} times in a row without "
                f"producing a token ({self._last_error.message}); "
                f"the next attempt is in {open_s:g} s"
            )
        )
        await asyncio.sleep(open_s)
        self._retry_at_s = None
        self._become(EngineState.recovering)

    # ------------------------------------------------------------------ messages

    async def _handle(self, message: FromEngine) -> None:
        if isinstance(message, StepOutput):
            self._stats = message.stats
            self.delivery.step(message)
        elif isinstance(message, Heartbeat):
            self._stats = message.stats
        elif isinstance(message, EngineFailed):
            self._stats = message.stats or self._stats
        elif isinstance(message, LoadProgress):
            self._load = message
            if self._state is EngineState.starting:
                self._become(EngineState.loading)
        elif isinstance(message, EngineReady):
            await self._ready(message.facts)

    async def _ready(self, facts: EngineFacts) -> None:
        self._facts = facts
        self._weights.engine_ready(facts.weights_source)
        self._load = LoadProgress(phase="ready", percent=100.0)
        n_resumed = 0
        # Requests that come meanwhile join the journal's end; the loop ends when none is left.
        while sent := self.delivery.resubmit(_RESUME_BATCH):
            n_resumed += sum(entry.n_restarts > 0 for entry in sent)
            await asyncio.sleep(0)
        self._n_resumed += n_resumed
        _log.info(
            "engine_ready", n_resumed=n_resumed, n_restarts=self._restarts.total(), pid=facts.pid
        )
        self._become(EngineState.ready)

    # ------------------------------------------------------------------ after a death

    def _report(self, ending: Ending, life: EngineLife | None) -> None:
        process = life.process if life else None
        code, signal_name = describe_exit(process.returncode if process else None)
        batch = self._facts or self._start_message.config.scheduler
        report = CrashReport(
            cause=ending.cause,
            detail=ending.detail,
            pid=process.pid if process else None,
            exit_code=code,
            signal_name=signal_name,
            phase=(process.page.phase if process else EnginePhase.starting).name,
            uptime_s=monotonic_s() - process.started_s if process else 0.0,
            n_tokens=self.delivery.n_tokens - self._n_tokens_before,
            in_flight=self.delivery.engine_died(batch.max_batch_size),
            died_at_unix_s=unix_s(),
        )
        self._crashes.append(report)
        _log.error("engine_died", **report.as_fields())
        lived_long = report.uptime_s >= self._config.restart_max_delay_s
        served = life is not None and life.is_serving
        if report.n_tokens or (served and lived_long and not report.in_flight):
            # In the second case it served, and nobody asked it for a token.
            self._policy.progress()

    def _is_hopeless(self, ending: Ending) -> bool:
        """True when no engine was ever ready, and the file, the settings or the machine are why.

        Once one has served, a bad file may become good again, and the server is worth keeping.
        """
        return self._facts is None and _cannot_pass(ending.error)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A defect in this file must not leave clients waiting for ever."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("supervisor_failed", exc_info=error)
        self._last_error = InternalError(f"the supervisor failed: {error}")
        self._become(EngineState.failed)
        self.delivery.fail_all(self._last_error)

    def _send(self, message: ToEngine) -> None:
        if self._life is not None:
            self._life.process.channel.send(message)

    def _become(self, state: EngineState) -> None:
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()


def _cannot_pass(error: RocmForgeError) -> bool:
    """True when the same start would fail in the same way."""
    if isinstance(error, HipError):
        return not error.is_recoverable()
    return error.category() in _HOPELESS or isinstance(error, _HOPELESS_ERRORS)
