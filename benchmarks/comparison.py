"""The arithmetic of compare.py: what a piece of work costs, and what turns of two say about it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rocmforge.gguf.reader import GGUFFile
from rocmforge.models.families import decoder_spec

# A key and a value of float16.
_KV_BYTES_PER_NUMBER = 2 * 2
# Our instruction sets → the limits of their kernels, for quantised weights and for floats.
ISA_LIMITS = {
    "avx2": ("avx2", "avx2_f32"),
    "avxvnni": ("avx_vnni", "avx2_f32"),
    "avx512": ("avx512_vnni", "avx512_f32"),
    "amx": ("amx_int8", "avx512_f32"),
    "neon": ("neon_dotprod", "neon_f32"),
}
_FLOAT_LIMITS = ("_f32", "_bf16")


@dataclass(frozen=True)
class Work:
    """What one turn does: n_tokens of one prompt, or n_tokens steps of all sequences."""

    name: str
    n_sequences: int
    n_tokens: int
    n_past: int = 0

    @property
    def is_prompt(self) -> bool:
        """Whether a prompt is read; else tokens are generated."""
        return self.name.startswith("prompt")

    @property
    def total_tokens(self) -> int:
        """Tokens of one turn."""
        return self.n_sequences * self.n_tokens


@dataclass(frozen=True)
class ModelCost:
    """What a forward pass must do, by the file."""

    matrix_bytes: int
    """As the file stores them, the head among them: what every step reads."""
    layer_macs: int
    """Multiply-adds of one token with the layers' matrices."""
    head_macs: int
    kv_bytes_per_position: int
    is_float: bool
    """Whether most matrices are F16, BF16 or F32."""

    @classmethod
    def of_file(cls, path: Path) -> ModelCost:
        """Count the matrices of a GGUF file."""
        with GGUFFile.open(path) as file:
            spec = decoder_spec(file.metadata, file.tensors)
            matrices = {n: t for n, t in file.tensors.items() if len(t.shape) == 2}
            head = matrices.get("output.weight", matrices["token_embd.weight"])
            layers = [t for name, t in matrices.items() if name.startswith("blk.")]
            float_bytes = sum(
                file.tensor_bytes(t.name).nbytes
                for t in layers
                if t.type.name in ("F32", "F16", "BF16")
            )
            layer_bytes = sum(file.tensor_bytes(t.name).nbytes for t in layers)
            return cls(
                matrix_bytes=layer_bytes + file.tensor_bytes(head.name).nbytes,
                layer_macs=sum(t.shape[0] * t.shape[1] for t in layers),
                head_macs=head.shape[0] * head.shape[1],
                kv_bytes_per_position=(
                    spec.n_layers * spec.n_kv_heads * spec.head_dim * _KV_BYTES_PER_NUMBER
                ),
                is_float=2 * float_bytes > layer_bytes,
            )

    def bytes_read(self, work: Work, n_past: int) -> float:
        """Bytes that a turn must read from memory: a prompt the weights once; a step the weights
        and the keys and values of all sequences."""
        if work.is_prompt:
            return self.matrix_bytes
        mean_past = n_past + (work.n_tokens - 1) / 2
        kv_bytes = work.n_sequences * mean_past * self.kv_bytes_per_position
        return work.n_tokens * (self.matrix_bytes + kv_bytes)

    def macs(self, work: Work) -> int:
        """Multiply-adds with the weights in a turn, without attention's: a prompt needs the head
        for its last token only."""
        n_head = 1 if work.is_prompt else work.total_tokens
        return work.total_tokens * self.layer_macs + n_head * self.head_macs


@dataclass(frozen=True)
class Round:
    """Neighbouring turns of both and the machine's limits between them."""

    ours_s: float
    theirs_s: float
    read_bytes_per_s: float
    macs_per_s: dict[str, float]
    n_past: int = 0
    """Mean position of a generation's first tokens, the same on both sides."""


@dataclass(frozen=True)
class Comparison:
    """Medians over the rounds. Shares are of our turns, against limits of the same rounds."""

    ours_tokens_per_s: float
    theirs_tokens_per_s: float
    ratio: float
    """How many times as fast we are: the median of the rounds' ratios."""
    ratio_low: float
    ratio_high: float
    """The middle half of the rounds' ratios lies between them."""
    read_share: float
    best_multiply_share: float
    isa_multiply_share: float | None
    """None where the limit of the instruction set in use is unknown."""

    @property
    def shares(self) -> dict[str, float]:
        """Those that are known, by what they are shares of."""
        found = {"reads": self.read_share, "best multiply": self.best_multiply_share}
        if self.isa_multiply_share is not None:
            found["multiply of the ISA in use"] = self.isa_multiply_share
        return found


def compare_rounds(work: Work, cost: ModelCost, isa: str, rounds: Sequence[Round]) -> Comparison:
    """What the rounds say together."""
    ratios = [r.theirs_s / r.ours_s for r in rounds]
    low, high = np.quantile(ratios, [0.25, 0.75])
    macs = cost.macs(work)
    names = ISA_LIMITS.get(isa)
    isa_limit = names[cost.is_float] if names else None
    has_isa_limit = all(isa_limit in r.macs_per_s for r in rounds)
    return Comparison(
        ours_tokens_per_s=work.total_tokens / statistics.median(r.ours_s for r in rounds),
        theirs_tokens_per_s=work.total_tokens / statistics.median(r.theirs_s for r in rounds),
        ratio=statistics.median(ratios),
        ratio_low=float(low),
        ratio_high=float(high),
        read_share=_share(
            [cost.bytes_read(work, r.n_past) / r.ours_s for r in rounds],
            [r.read_bytes_per_s for r in rounds],
        ),
        best_multiply_share=_share(
            [macs / r.ours_s for r in rounds],
            [best_multiply(r.macs_per_s, is_float=cost.is_float) for r in rounds],
        ),
        isa_multiply_share=_share(
            [macs / r.ours_s for r in rounds], [r.macs_per_s[isa_limit] for r in rounds]
        )
        if isa_limit and has_isa_limit
        else None,
    )


def best_multiply(macs_per_s: dict[str, float], *, is_float: bool) -> float:
    """The largest limit for float or int8 numbers; infinite where none is known."""
    fitting = [v for k, v in macs_per_s.items() if k.endswith(_FLOAT_LIMITS) == is_float]
    return max(fitting, default=float("inf"))


def _share(rates: Sequence[float], limits: Sequence[float]) -> float:
    return statistics.median(r / limit for r, limit in zip(rates, limits, strict=True))
