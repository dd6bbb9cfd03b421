"""Imports go one way, and each process imports only its own side."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.source_tree import Module, modules

# Leaf files: both sides may use them.
LEAVES = {
    "errors",
    "request",
    "config",
    "checks",
    "server_config",
    "clock",
    "retry",
    "retry_config",
    "fault_config",
    "observe",
    "gguf",
    "quant",
    "embedded",
    "heap",
    "weights_store",
}
ALLOWED = {
    "error_base": set(),
    "errors": {"error_base"},
    "clock": set(),
    "request": {"errors"},
    "config": {"errors", "checks", "server_config", "retry_config", "fault_config"},
    "fault_config": {"errors"},
    "retry": {"errors", "retry_config", "observe"},
    "retry_config": {"errors"},
    "checks": {"errors"},
    "server_config": {"errors", "checks"},
    "model_source": {"errors", "embedded"},
    "embedded": set(),
    "heap": set(),
    "weights_store": set(),
    "observe": {"errors", "config", "clock", "request"},
    "quant": {"errors"},
    "gguf": {"errors", "quant"},
    "wire": {"errors", "config", "request", "clock"},
    "text": LEAVES - {"observe"},
    "supervisor": LEAVES | {"wire"},
    "server": LEAVES | {"wire", "supervisor", "text"},
    "backends": LEAVES | {"_native"},
    "models": LEAVES | {"backends"},
    "cache": LEAVES,
    "sampling": LEAVES | {"_native"},
    "engine": LEAVES | {"wire", "cache", "sampling", "models", "backends", "_native"},
    # In process, without a server: the Python API puts text and engine together.
    # wire: the engine's outputs are its structs. model_source: it finds models as the CLI does.
    "api": LEAVES
    | {"wire", "text", "cache", "sampling", "models", "backends", "engine", "model_source"},
    "rocmforge": {"api", "request", "errors"},
}
SERVER_SIDE = {"server", "text", "supervisor"}
ENGINE_SIDE = {"engine", "cache", "sampling", "models", "backends", "_native"}
TORCH_FREE = SERVER_SIDE | {"wire", "gguf", "quant"}


def own_imports(module: Module) -> set[str]:
    names = [name.split(".") for name, _ in module.imports() if name.split(".")[0] == "rocmforge"]
    return {parts[1] for parts in names if len(parts) > 1}


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.name)
def test_direction(module):
    if module.layer == "cli":
        return  # the commands put everything together
    assert module.layer in ALLOWED, f"{module.name}: give the new part a place in this table"
    forbidden = own_imports(module) - ALLOWED[module.layer] - {module.layer}
    if module.layer == "rocmforge":
        forbidden -= {"load", "Model"}
    assert not forbidden, f"{module.name} may not import {sorted(forbidden)}"


def test_only_config_reads_the_environment():
    readers = [m.name for m in modules() if "os.environ" in m.text or "os.getenv" in m.text]
    assert readers == ["rocmforge.config"]


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules, sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "module", [m for m in modules() if m.layer in TORCH_FREE], ids=lambda m: m.name
)
def test_no_torch_in_source(module):
    assert not [name for name, _ in module.imports() if name.split(".")[0] == "torch"]


def test_server_process_loads_nothing_of_the_engine():
    loaded = loaded_after("import rocmforge.server.app, rocmforge.supervisor.client")
    engine = {m for m in loaded if m.startswith("rocmforge.") and m.split(".")[1] in ENGINE_SIDE}
    assert not engine
    assert "torch" not in loaded


def test_engine_process_loads_nothing_of_the_server():
    loaded = loaded_after("import rocmforge.engine.worker")
    server = {m for m in loaded if m.startswith("rocmforge.") and m.split(".")[1] in SERVER_SIDE}
    assert not server
    assert not loaded & {"torch", "fastapi", "uvicorn", "tokenizers", "jinja2"}


def test_package_import_is_light():
    loaded = loaded_after("import rocmforge")
    assert not loaded & {"numpy", "torch", "fastapi", "tokenizers", "rocmforge._native"}


HEAVY = {
    *("numpy", "asyncio", "msgspec", "pydantic", "starlette", "uvicorn", "tokenizers", "jinja2"),
    *("structlog", "rich", "typer", "huggingface_hub", "prometheus_client", "torch"),
}


def test_an_engine_is_launched_before_anything_is_imported():
    loaded = loaded_after("import rocmforge.cli.main, rocmforge.supervisor.launch, rocmforge.heap")
    assert not loaded & HEAVY


def test_a_command_loads_no_other_command():
    loaded = loaded_after("import rocmforge.cli.main as m; m.command_line(['serve'])")
    assert "rocmforge.cli.serve" in loaded
    assert not loaded & {f"rocmforge.cli.{name}" for name in ("run", "chat", "bench", "inspect")}
    assert not loaded & {"numpy", "structlog", "starlette", "huggingface_hub", "asyncio"}


def test_the_address_is_taken_before_the_server_is_imported():
    loaded = loaded_after("import rocmforge.server.run")
    assert not loaded & {"numpy", "pydantic", "starlette", "uvicorn", "tokenizers", "structlog"}


def test_a_running_server_has_what_it_needs_and_no_more():
    loaded = loaded_after("import rocmforge.server.lifetime")
    assert {"starlette", "uvicorn", "tokenizers", "pydantic"} <= loaded
    assert not loaded & {"fastapi", "jinja2", "typer", "huggingface_hub", "websockets", "torch"}
