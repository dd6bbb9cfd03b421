"""The embedded model: a small trained GGUF file that ships with the package."""

from __future__ import annotations

from pathlib import Path

EMBEDDED_MODEL_PATH = Path(__file__).with_name("rocmforge-tiny.gguf")
"""The file that is served when no model is named."""
