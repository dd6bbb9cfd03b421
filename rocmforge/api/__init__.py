"""The Python API: a model in this process, without a server."""

from __future__ import annotations

from rocmforge.api.generation import (
    GeneratedChoice,
    GenerationDelta,
    GenerationResult,
    ScoredToken,
)
from rocmforge.api.model import Model, load
from rocmforge.api.stream import GenerationStream

__all__ = [
    "GeneratedChoice",
    "GenerationDelta",
    "GenerationResult",
    "GenerationStream",
    "Model",
    "ScoredToken",
    "load",
]
