"""The native core (native/bind_core.cc, native/bind_sample.cc)."""

from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

LOGITS: int
NONE: int

class OpKind(Enum):
    Embed = ...
    RmsNorm = ...
    HeadNorm = ...
    Quantize = ...
    Matmul = ...
    Add = ...
    RopeTables = ...
    Rope = ...
    KvAppend = ...
    Attention = ...
    Swiglu = ...
    Scale = ...
    SelectRows = ...

class ThreadPool:
    def __init__(self, n_threads: int) -> None: ...
    @property
    def size(self) -> int: ...

class Weights:
    def __init__(self, n_bytes: int) -> None: ...
    def pack(
        self,
        pool: ThreadPool,
        offset: int,
        type: str,
        cols: int,
        first_row: int,
        n_rows: int,
        data: npt.NDArray[np.uint8],
    ) -> None: ...
    def store(self, offset: int, data: npt.NDArray[np.uint8]) -> None: ...

class Program:
    def __init__(
        self,
        weights: Weights,
        pool: ThreadPool,
        isa: str,
        *,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        n_blocks: int,
        block_tokens: int,
        is_f16: bool,
        max_tokens: int,
        max_sequences: int,
        max_rows: int,
        max_blocks: int,
        logits_width: int,
        arena_bytes: int,
    ) -> None: ...
    def add_frequencies(self, inv_freq: list[float]) -> int: ...
    def add(self, kind: OpKind, *, stage: int, **fields: Any) -> None: ...
    def run(
        self,
        token_ids: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        query_start: npt.NDArray[np.int32],
        context_len: npt.NDArray[np.int32],
        block_tables: npt.NDArray[np.int32],
        logits_rows: npt.NDArray[np.int32],
        block_copies: npt.NDArray[np.int32],
        logits: npt.NDArray[np.float32],
        counter: npt.NDArray[np.int64],
    ) -> None: ...

def available_isas() -> list[str]: ...
def failing_kernels(isa: str) -> str: ...
def matrix_bytes(type: str, rows: int, cols: int) -> int: ...
def weight_types() -> list[str]: ...
def act_kind(type: str) -> str: ...
def act_bytes(type: str, cols: int, rows: int) -> int: ...

class SampleRow: ...

def sample_row_params(
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    presence_penalty: float,
    frequency_penalty: float,
    n_logprobs: int,
    seed: int,
    choice: int,
    position: int,
    history: list[tuple[int, int]],
    biases: list[tuple[int, float]],
    suppressed: list[int],
) -> SampleRow: ...
def sample_rows(
    logits: npt.NDArray[np.float32], rows: list[SampleRow]
) -> list[tuple[int, int, float, list[int], list[float]]]: ...
def philox4x32_10(counter: list[int], key0: int, key1: int) -> list[int]: ...
def philox_uniform(seed: int, choice: int, position: int, draw: int) -> float: ...
