"""What a model will take of the machine's memory, known before a weight of it is copied."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rocmforge.backends.ops import KvGeometry, StepLimits
from rocmforge.config import EngineConfig
from rocmforge.engine.machine_memory import AvailableMemory
from rocmforge.engine.memory import cache_blocks, sequence_length
from rocmforge.errors import CacheCapacityExceeded, ModelLoadFailed
from rocmforge.models.spec import DecoderSpec


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes by purpose. shared_bytes: weights that are in memory already, and may be used as they
    are. workspace_bytes: activations of the largest step and its logits.
    """

    weight_bytes: int
    shared_bytes: int
    kv_bytes: int
    workspace_bytes: int
    n_sequences: int
    n_ctx: int
    available: AvailableMemory

    @property
    def needed_bytes(self) -> int:
        """What is still to be taken."""
        return self.weight_bytes - self.shared_bytes + self.kv_bytes + self.workspace_bytes

    @property
    def fits(self) -> bool:
        """Whether that much is there."""
        return self.needed_bytes <= self.available.n_bytes

    def check(self) -> None:
        """Raises ModelLoadFailed, with the numbers, when it does not fit."""
        if self.fits:
            return
        raise ModelLoadFailed(
            f"the model needs {_gb(self.needed_bytes)} GB (weights {_gb(self.weight_bytes)}, KV "
            f"cache {_gb(self.kv_bytes)} for {self.n_sequences} sequences of {self.n_ctx}, "
            f"workspace {_gb(self.workspace_bytes)}); {_gb(self.available.n_bytes)} GB are "
            f"available ({self.available.describe()}); use a smaller model, --kv-bytes, --ctx or "
            "--max-batch-size"
        )

    def as_fields(self) -> dict[str, int | str]:
        """For the log."""
        return {
            "weight_bytes": self.weight_bytes,
            "shared_bytes": self.shared_bytes,
            "kv_bytes": self.kv_bytes,
            "workspace_bytes": self.workspace_bytes,
            "available_bytes": self.available.n_bytes,
            "limited_by": self.available.source,
        }


def make_plan(
    config: EngineConfig,
    spec: DecoderSpec,
    *,
    weight_bytes: int,
    workspace_bytes: int,
    available: AvailableMemory,
    shared_bytes: int = 0,
) -> MemoryPlan:
    """The plan for a model on a backend that needs so much for weights and for working memory.

    Whether it fits is not looked at where kv_bytes is given. Raises InvalidCacheConfiguration when
    kv_bytes pays for no block, ModelLoadFailed when what the weights leave does not.
    """
    n_ctx = sequence_length(config, spec.n_ctx_train)
    plan = MemoryPlan(
        weight_bytes=weight_bytes,
        shared_bytes=shared_bytes,
        kv_bytes=0,
        workspace_bytes=workspace_bytes,
        n_sequences=config.scheduler.max_batch_size,
        n_ctx=n_ctx,
        available=available,
    )
    if config.cache.kv_bytes is None:
        plan.check()
    block_bytes = kv_geometry(config, spec, 1).block_bytes
    left = available.n_bytes - plan.needed_bytes
    try:
        n_blocks = cache_blocks(config, n_ctx, block_bytes, left)
    except CacheCapacityExceeded as error:
        raise ModelLoadFailed(
            f"{error.message}; the weights take {_gb(weight_bytes)} GB of "
            f"{_gb(available.n_bytes)} ({available.describe()})"
        ) from error
    return replace(plan, kv_bytes=n_blocks * block_bytes)


def kv_geometry(config: EngineConfig, spec: DecoderSpec, n_blocks: int) -> KvGeometry:
    """The KV cache of a model with so many blocks."""
    return KvGeometry(
        n_layers=spec.n_layers,
        n_kv_heads=spec.n_kv_heads,
        head_dim=spec.head_dim,
        n_blocks=n_blocks,
        block_tokens=config.cache.block_tokens,
        kv_type=config.cache.kv_type,
    )


def step_limits(config: EngineConfig, n_ctx: int) -> StepLimits:
    """The largest step of an engine with sequences of n_ctx positions."""
    batch = config.scheduler.max_batch_size
    return StepLimits(
        max_tokens=config.scheduler.max_step_tokens,
        max_sequences=batch,
        max_rows=batch,
        max_blocks_per_sequence=-(-n_ctx // config.cache.block_tokens),
    )


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f}"
