"""From a configuration to an engine that serves, telling how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rocmforge.backends.ops import Backend
from rocmforge.backends.select import choose
from rocmforge.clock import monotonic_s
from rocmforge.config import EngineConfig
from rocmforge.engine.engine import Engine
from rocmforge.engine.engine_device import EngineDevice
from rocmforge.engine.machine_memory import available_memory
from rocmforge.engine.memory import sequence_length
from rocmforge.engine.memory_plan import make_plan, step_limits
from rocmforge.engine.runner import Runner
from rocmforge.engine.step_budget import StepBudget
from rocmforge.heap import release_free_memory
from rocmforge.models.decoder import Decoder
from rocmforge.models.loading import load_model
from rocmforge.observe.log import get_logger
from rocmforge.weights_store import read_header
from rocmforge.wire.protocol import EngineFacts

# How the time of a start divides, roughly: reading and packing weights is nearly all of it.
_READ_PERCENT = 5.0
_PACK_PERCENT = 90.0
_PLAN_PERCENT = 95.0
_log = get_logger(__name__)


def _silent(_phase: str, _percent: float) -> None:
    return


def _unwatched() -> None:
    return


def start_engine(
    config: EngineConfig,
    *,
    progress: Callable[[str, float], None] = _silent,
    op_counter: memoryview | None = None,
    beat: Callable[[], None] = _unwatched,
    check_invariants: bool = False,
    is_replacement: bool = False,
    store_fd: int | None = None,
) -> tuple[Engine, EngineFacts]:
    """Choose a backend, load the model, size the cache, warm up; the engine, and what really runs.

    `progress(phase, percent)` is called with the phases read, pack, plan and warm; `beat()`, then
    and later, while a device operation waits for its retry. is_replacement: another engine of the
    same sizes served before. store_fd: the weights store (weights_store) that outlives this engine.
    Raises a RocmForgeError that says what is wrong with the model, the configuration or the device.
    """
    start_s = monotonic_s()
    runner = load_runner(
        config,
        progress=progress,
        op_counter=op_counter,
        beat=beat,
        is_replacement=is_replacement,
        store_fd=store_fd,
    )
    runner.forget_metadata()
    release_free_memory()
    engine = Engine(
        runner,
        runner.new_sampler(),
        config,
        budget=warm_up(runner, config),
        check_invariants=check_invariants,
        device=runner.device,
    )
    facts = runner.facts(monotonic_s() - start_s)
    progress("warm", 100.0)
    _log.info("engine_ready", **{name: getattr(facts, name) for name in facts.__struct_fields__})
    return engine, facts


def load_runner(
    config: EngineConfig,
    *,
    progress: Callable[[str, float], None] = _silent,
    op_counter: memoryview | None = None,
    beat: Callable[[], None] = _unwatched,
    is_replacement: bool = False,
    store_fd: int | None = None,
) -> Runner:
    """Choose a backend, load the model and size the cache; see start_engine."""
    progress("read", 0.0)
    device = EngineDevice.of(config, beat)
    backend, reason = choose(config.device, config.isa, config.n_threads, device.retrying)
    _log.info("backend_chosen", backend=backend.name, isa=backend.isa, reason=reason)
    progress("read", _READ_PERCENT)

    def plan(decoder: Decoder, weight_bytes: int) -> None:
        nonlocal config
        config = _planned(
            config, backend, decoder, weight_bytes, _reusable_bytes(store_fd), is_replacement
        )

    model = load_model(
        config.model_path,
        backend,
        before_copy=plan,
        store_fd=store_fd,
        progress=lambda done: progress(
            "pack", _READ_PERCENT + done * (_PACK_PERCENT - _READ_PERCENT)
        ),
    )
    _log.info("weights_loaded", weight_bytes=model.weight_bytes, types=dict(model.weight_types))
    progress("plan", _PACK_PERCENT)
    runner = Runner(backend, model, config, op_counter, device)
    progress("warm", _PLAN_PERCENT)
    return runner


def _planned(
    config: EngineConfig,
    backend: Backend,
    decoder: Decoder,
    weight_bytes: int,
    shared_bytes: int,
    is_replacement: bool,
) -> EngineConfig:
    """The configuration with the size of the KV cache decided. Raises ModelLoadFailed when the
    model does not fit.
    """
    n_ctx = sequence_length(config, decoder.spec.n_ctx_train)
    plan = make_plan(
        config,
        decoder.spec,
        weight_bytes=weight_bytes,
        shared_bytes=min(shared_bytes, weight_bytes),
        workspace_bytes=backend.workspace_bytes(decoder.forward, step_limits(config, n_ctx)),
        available=available_memory(),
    )
    _log.info("memory_plan", **plan.as_fields())
    if is_replacement and not plan.fits:
        # It fitted once, and requests wait for it: memory that is never touched is never needed.
        _log.warning("memory_is_short", needed_bytes=plan.needed_bytes)
    else:
        plan.check()
    return replace(config, cache=replace(config.cache, kv_bytes=plan.kv_bytes))


def _reusable_bytes(store_fd: int | None) -> int:
    """Bytes of weights that are in memory already; they are not free, nor taken again."""
    header = None if store_fd is None else read_header(store_fd)
    return 0 if header is None else header.n_bytes


def warm_up(runner: Runner, config: EngineConfig) -> StepBudget:
    """Run a runner for the first time; the step budget that knows how fast it is."""
    budget = StepBudget(config.scheduler.max_step_tokens, config.scheduler.max_step_ms)
    budget.observe(*runner.warm_up())
    return budget
