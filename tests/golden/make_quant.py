"""Ask ggml's own C code what blocks decode to and what values encode to; writes quant.json beside
this file.

Run with llama-cpp-python installed, whose library holds ggml: python -m tests.golden.make_quant
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path

import numpy as np

from rocmforge.quant.formats import FORMATS, GGMLType
from tests.support.quant_blocks import BLOCK_TYPES, random_blocks

GOLDEN = Path(__file__).with_name("quant.json")
N_BLOCKS = 256
N_VALUES = 8192
# ggml has no decoder for what it quantises activations of *_1 types to.
NOT_DECODED = ("Q8_1",)
BY_ERROR = ("Q4_K", "Q5_K", "Q6_K")
"""Our encoders search in a way of their own: only the squared error can be compared."""
ENCODED = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_1", *BY_ERROR)


def encoder_values() -> np.ndarray:
    """float32 [N_VALUES]: rows of very different sizes, constants, zeros, one outlier."""
    raw = np.random.Philox(key=11).random_raw(4 * N_VALUES).reshape(4, N_VALUES)
    # Sums of uniform integers: bell-shaped, and the same on every machine.
    bell = ((raw >> np.uint64(44)).astype(np.int64) - (1 << 19)).sum(0)
    rows = bell.astype(np.float64).reshape(-1, 256) / (1 << 19)
    rows *= 2.0 ** np.linspace(-12, 12, len(rows))[:, None]
    rows[0] = 0
    rows[1] = 0.75
    rows[2] = np.abs(rows[2])
    rows[3] = -np.abs(rows[3])
    rows[4, 100] = 1e4
    rows[5, ::2] = 0
    return rows.astype(np.float32).reshape(-1)


def sha256(array: np.ndarray) -> str:
    """Of the array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


class Ggml:
    """The functions of libggml-base by their C names."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("llama_cpp")
        assert spec, "install llama-cpp-python"
        folder = Path(spec.submodule_search_locations[0]) / "lib"
        self._library = ctypes.CDLL(str(folder / "libggml-base.so"))
        self._library.ggml_version.restype = ctypes.c_char_p
        self._library.ggml_type_size.restype = ctypes.c_size_t
        self._library.ggml_blck_size.restype = ctypes.c_int64

    @property
    def version(self) -> str:
        """ggml's own, and that of the package it came in."""
        package = importlib.metadata.version("llama-cpp-python")
        return f"{self._library.ggml_version().decode()} in llama-cpp-python {package}"

    def sizes(self, type_name: str) -> list[int]:
        """[values per block, bytes per block]."""
        number = int(GGMLType[type_name])
        return [self._library.ggml_blck_size(number), self._library.ggml_type_size(number)]

    def decode(self, type_name: str, blocks: np.ndarray) -> np.ndarray:
        """uint8 [N, block_bytes] → float32 [N, block_size]."""
        out = np.empty((len(blocks), FORMATS[GGMLType[type_name]].block_size), np.float32)
        self._call(f"dequantize_row_{_c_name(type_name)}", blocks, out, out.size)
        return out

    def encode(self, type_name: str, values: np.ndarray) -> np.ndarray:
        """float32 [n] → uint8 [N, block_bytes]."""
        form = FORMATS[GGMLType[type_name]]
        out = np.empty((values.size // form.block_size, form.block_bytes), np.uint8)
        self._call(f"quantize_row_{_c_name(type_name)}_ref", values, out, values.size)
        return out

    def _call(self, name: str, given: np.ndarray, out: np.ndarray, n_values: int) -> None:
        given = np.ascontiguousarray(given)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (given, out)]
        getattr(self._library, name)(*pointers, ctypes.c_int64(n_values))


def _c_name(type_name: str) -> str:
    return type_name[:-1].lower() + "K" if type_name.endswith("_K") else type_name.lower()


def ask_ggml() -> dict[str, object]:
    """All of the golden."""
    ggml = Ggml()
    values = encoder_values()
    decoded = {}
    for name in BLOCK_TYPES:
        if name in NOT_DECODED:
            continue
        blocks = random_blocks(name, N_BLOCKS)
        out = ggml.decode(name, blocks)
        decoded[name] = {
            "blocks_sha256": sha256(blocks),
            "first": base64.b64encode(out[0].astype("<f4").tobytes()).decode(),
            "values_sha256": sha256(out.astype("<f4")),
        }
    encoded: dict[str, dict[str, object]] = {}
    for name in ENCODED:
        raw = ggml.encode(name, values)
        encoded[name] = {"blocks_sha256": sha256(raw)}
        if name == "Q8_1":
            encoded[name]["blocks"] = base64.b64encode(raw.tobytes()).decode()
        if name in BY_ERROR:
            wide = ggml.decode(name, raw).reshape(-1, 256).astype(np.float64)
            errors = np.square(wide - values.reshape(-1, 256).astype(np.float64)).sum(1)
            encoded[name]["squared_errors"] = [float(f"{error:.9g}") for error in errors]
    return {
        "oracle": "ggml",
        "version": ggml.version,
        "script": "tests/golden/make_quant.py",
        "sizes": {form.name: ggml.sizes(form.name) for form in FORMATS.values()},
        "encoder_values_sha256": sha256(values),
        "decoded": decoded,
        "encoded": encoded,
    }


def main() -> None:
    """Write the golden."""
    GOLDEN.write_text(json.dumps(ask_ggml()) + "\n")


if __name__ == "__main__":
    main()
