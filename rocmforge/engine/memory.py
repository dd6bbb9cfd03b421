"""How much memory the KV cache may take."""

from __future__ import annotations

from rocmforge.config import EngineConfig
from rocmforge.engine.machine_memory import available_bytes
from rocmforge.errors import CacheCapacityExceeded, InvalidCacheConfiguration
from rocmforge.observe.log import get_logger

# Part of the free memory that the cache takes unasked: the rest is for the page cache (the model
# file), working memory, and the machine's other business.
FREE_MEMORY_SHARE = 0.25
DEFAULT_SEQUENCE_LENGTH = 4096
_log = get_logger(__name__)


def sequence_length(config: EngineConfig, n_ctx_train: int) -> int:
    """Positions per sequence: what is configured, at most what the model was trained for."""
    wanted = config.max_sequence_length or DEFAULT_SEQUENCE_LENGTH
    if config.max_sequence_length is not None and wanted > n_ctx_train:
        _log.warning("max_sequence_length_reduced", configured=wanted, model=n_ctx_train)
    return min(wanted, n_ctx_train)


def cache_blocks(
    config: EngineConfig, n_ctx: int, block_bytes: int, free_bytes: int | None = None
) -> int:
    """Blocks of the KV cache: as many as kv_bytes pays for; without it, room for max_batch_size
    full sequences within a quarter of the free memory (free_bytes None: what is free now).

    Raises InvalidCacheConfiguration when kv_bytes pays for no block, CacheCapacityExceeded when the
    free memory does not.
    """
    per_sequence = -(-n_ctx // config.cache.block_tokens)
    most = per_sequence * config.scheduler.max_batch_size
    if config.cache.kv_bytes is not None:
        n_blocks = min(most, config.cache.kv_bytes // block_bytes)
        if n_blocks < 1:
            raise InvalidCacheConfiguration(
                f"cache.kv_bytes = {config.cache.kv_bytes} is less than one block of "
                f"{config.cache.block_tokens} positions ({block_bytes} bytes); a full sequence of "
                f"{n_ctx} needs {per_sequence * block_bytes}"
            )
    else:
        free = available_bytes() if free_bytes is None else free_bytes
        share = int(free * FREE_MEMORY_SHARE)
        n_blocks = min(most, share // block_bytes)
        if n_blocks < 1:
            raise CacheCapacityExceeded(
                f"a quarter of the free memory ({share} bytes) does not hold one block of the KV "
                f"cache ({block_bytes} bytes); free memory or use a smaller model"
            )
    if n_blocks < per_sequence:
        _log.warning(
            "kv_cache_limits_sequence_length",
            n_ctx=n_ctx,
            holds=n_blocks * config.cache.block_tokens,
            kv_bytes=n_blocks * block_bytes,
        )
    return n_blocks
