"""Rotary position embeddings: frequencies, with every context extension that GGUF files name.

Sources: RoPE, Su et al. 2021; position interpolation, Chen et al. 2023; YaRN, Peng et al. 2023
(ramp between interpolated and extrapolated frequencies, magnitude 0.1·ln(factor) + 1); llama 3 and
longrope store per-frequency divisors in the file.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rocmforge.errors import InvalidModelFile
from rocmforge.models.spec import DecoderSpec, RopeScaling


def frequencies(
    spec: DecoderSpec, factors: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.float32], float]:
    """(inv_freq float32 [rope_dim / 2], magnitude of cos and sin).

    `factors` float32 [rope_dim / 2] are the file's divisors of the frequencies (rope_freqs.weight,
    or one of the longrope tables). Raises InvalidModelFile when they, base and scaling together
    give frequencies that float32 cannot hold.
    """
    pairs = np.arange(spec.rope_dim // 2, dtype=np.float64)
    plain = spec.rope_base ** (-2.0 * pairs / spec.rope_dim)
    if factors is not None:
        plain = plain / factors.astype(np.float64)
    scaling = spec.rope_scaling
    if scaling.kind == "linear":
        plain = plain / scaling.factor
    if scaling.kind == "yarn":
        plain = _yarn(plain, spec)
    with np.errstate(over="ignore", invalid="ignore"):
        inv_freq = plain.astype(np.float32)
    if not np.isfinite(inv_freq).all():
        raise InvalidModelFile(
            f"{spec.architecture}.rope.* and the file's frequency factors give rotary frequencies "
            "that are not finite; the file is damaged, fetch it again"
        )
    return inv_freq, _magnitude(spec)


def _yarn(plain: npt.NDArray[np.float64], spec: DecoderSpec) -> npt.NDArray[np.float64]:
    scaling = spec.rope_scaling
    low = max(0, math.floor(_rotations_dim(scaling.beta_fast, spec)))
    high = min(spec.rope_dim - 1, math.ceil(_rotations_dim(scaling.beta_slow, spec)))
    ramp = (np.arange(len(plain)) - low) / max(0.001, high - low)
    keep = (1.0 - np.clip(ramp, 0.0, 1.0)) * scaling.extrapolation_factor
    return plain / scaling.factor * (1.0 - keep) + plain * keep


def _rotations_dim(rotations: float, spec: DecoderSpec) -> float:
    """The pair that turns `rotations` times within the original context."""
    length = spec.rope_scaling.original_context_length
    turns = math.log(length / (rotations * 2 * math.pi))
    # A base of 1 rotates every pair alike: no pair is special.
    return spec.rope_dim * turns / (2 * math.log(max(spec.rope_base, 1.0 + 1e-9)))


def _magnitude(spec: DecoderSpec) -> float:
    scaling: RopeScaling = spec.rope_scaling
    if scaling.kind == "yarn":
        given = 1.0 if scaling.attention_factor is None else scaling.attention_factor
        if scaling.extrapolation_factor == 0.0:
            return given  # all interpolated, as llama.cpp takes it: position interpolation
        return given * (0.1 * math.log(max(scaling.factor, 1.0)) + 1.0)
    if scaling.kind == "longrope":
        if scaling.attention_factor is not None:
            return scaling.attention_factor
        stretch = spec.n_ctx_train / max(1, scaling.original_context_length)
        # With an original context of 1 the formula has no value.
        if stretch > 1.0 and scaling.original_context_length > 1:
            return math.sqrt(1.0 + math.log(stretch) / math.log(scaling.original_context_length))
    return 1.0
