"""Asks llama.cpp (llama-cpp-python) how a vocabulary tokenizes and detokenizes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def llama_vocabulary(metadata: Mapping[str, object]) -> Iterator[LlamaVocabulary]:
    """Writes the metadata to a GGUF file without weights and loads it."""
    import gguf
    import llama_cpp

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "vocab.gguf")
        writer = gguf.GGUFWriter(path, "llama")
        for key, value in metadata.items():
            _add(writer, key, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        with _quiet():
            model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
        try:
            yield LlamaVocabulary(llama_cpp, model)
        finally:
            model.close()


def _add(writer: object, key: str, value: object) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """llama.cpp writes to the descriptor itself."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


class LlamaVocabulary:
    """llama.cpp's side of encode and decode."""

    def __init__(self, llama_cpp: object, model: object) -> None:
        self._lib = llama_cpp
        self._vocab = model._model.vocab

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode()
        room = 4 * len(data) + 16
        ids = (ctypes.c_int32 * room)()
        n = self._lib.llama_tokenize(
            self._vocab, data, len(data), ids, room, add_special, parse_special
        )
        if n < 0:
            raise RuntimeError(f"llama_tokenize needs {-n} places")
        return list(ids[:n])

    def pieces(self, ids: list[int], *, special: bool) -> bytes:
        """What a server that streams tokens one by one sends."""
        room = 512
        buffer = ctypes.create_string_buffer(room)
        result = b""
        for token_id in ids:
            n = self._lib.llama_token_to_piece(self._vocab, token_id, buffer, room, 0, special)
            if n < 0:
                raise RuntimeError(f"llama_token_to_piece needs {-n} bytes")
            result += buffer.raw[:n]
        return result

    def decode(self, ids: list[int]) -> bytes:
        """The whole text at once, control tokens left out."""
        room = 64 * len(ids) + 64
        buffer = ctypes.create_string_buffer(room)
        array = (ctypes.c_int32 * max(1, len(ids)))(*ids)
        n = self._lib.llama_detokenize(self._vocab, array, len(ids), buffer, room, False, False)
        if n < 0:
            raise RuntimeError(f"llama_detokenize needs {-n} bytes")
        return buffer.raw[:n]

    def is_eog(self, token_id: int) -> bool:
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token_id))

    def is_control(self, token_id: int) -> bool:
        return bool(self._lib.llama_vocab_is_control(self._vocab, token_id))

    @property
    def adds_bos(self) -> bool:
        return bool(self._lib.llama_vocab_get_add_bos(self._vocab))
