"""ROCmForge: a server for GGUF language models that does not fall over.

In process, without a server:

    with rocmforge.load("model.gguf") as model:
        print(model.generate("The sky is", rocmforge.SamplingParams(max_tokens=16)).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rocmforge.api import Model, load
    from rocmforge.request import SamplingParams

    __version__: str

__all__ = ["Model", "SamplingParams", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # What is asked for is imported, not more: the server's processes import this package too.
    if name in ("Model", "load"):
        from rocmforge import api

        return getattr(api, name)
    if name == "SamplingParams":
        from rocmforge.request import SamplingParams

        return SamplingParams
    if name == "__version__":
        from importlib.metadata import version

        return version("rocmforge")
    raise AttributeError(f"module 'rocmforge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
