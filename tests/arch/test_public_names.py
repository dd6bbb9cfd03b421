"""One home per noun and per op; the names that users and the contract rely on exist."""

from __future__ import annotations

import ast
from collections import defaultdict

import rocmforge
from rocmforge import errors
from rocmforge.backends.ops import Ops
from rocmforge.backends.reference import ReferenceOps
from tests.support.source_tree import modules

CONTRACT_ERRORS = [
    "HipError",
    "GpuMemoryAllocationFailed",
    "GpuDeviceNotFound",
    "GpuKernelLaunchFailed",
    "BackendInitializationFailed",
    "ModelLoadFailed",
    "InvalidModelFile",
    "UnsupportedModelFormat",
    "TensorNotFound",
    "InvalidTensorShape",
    "CacheCapacityExceeded",
    "InvalidSequenceId",
    "InvalidCacheConfiguration",
    "CacheError",
    "RequestNotFound",
    "BatchSizeExceeded",
    "QueueCapacityExceeded",
    "InvalidStateTransition",
    "EmptyLogits",
    "InvalidTemperature",
    "InvalidTopK",
    "InvalidTopP",
    "ZeroProbabilities",
    "InvalidRequest",
    "InvalidConfiguration",
    "EngineNotInitialized",
    "GenerationFailed",
    "InferenceFailed",
    "IoError",
    "MmapError",
    "InternalError",
    "LockPoisoned",
]


def test_contract_errors_exist():
    for name in CONTRACT_ERRORS:
        assert issubclass(getattr(errors, name), errors.RocmForgeError), name
    assert issubclass(errors.CacheError.InvalidEntry, errors.CacheError)


def test_public_api():
    assert callable(rocmforge.load)
    assert {"load", "Model", "SamplingParams"} <= set(rocmforge.__all__)


def test_every_class_has_one_home():
    homes = defaultdict(list)
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module.name)
    assert not {name: where for name, where in homes.items() if len(where) > 1}


def ops_of(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_") and callable(vars(cls)[name])}


def test_every_op_is_in_every_implementation():
    from rocmforge.backends.cpu_ops import CpuOps

    contract = ops_of(Ops)
    assert contract
    assert contract <= ops_of(ReferenceOps)
    assert contract <= ops_of(CpuOps)


def test_public_functions_have_docstrings():
    missing = []
    for module in modules():
        assert ast.get_docstring(module.tree) or not module.text.strip(), module.name
        missing += [
            f"{module.name}:{node.name}"
            for node in module.tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    assert not missing
