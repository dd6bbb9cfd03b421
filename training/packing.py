"""Endless training batches: documents generated, encoded and packed end to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.corpus import document
from training.tokenizer import Encoder

DOCUMENTS_PER_REFILL = 512


@dataclass(frozen=True)
class Batch:
    """Inputs, the ids one position later, and where these are learnt; each [B, T]."""

    inputs: Tensor
    targets: Tensor
    learnt: Tensor


class BatchSource:
    """Cuts the corpus into batches. The next document's number is all that a resumed run needs."""

    def __init__(self, encoder: Encoder, seed: int, next_document: int = 0) -> None:
        self._encoder = encoder
        self._seed = seed
        self.next_document = next_document
        self._ids = np.empty(0, dtype=np.int64)
        self._flags = np.empty(0, dtype=bool)

    def batch(self, rows: int, length: int) -> Batch:
        """The next rows × length tokens; rows continue the text of the row before."""
        needed = rows * length + 1
        while len(self._ids) < needed:
            self._refill()
        ids, flags = self._ids[:needed], self._flags[:needed]
        self._ids, self._flags = self._ids[needed - 1 :], self._flags[needed - 1 :]
        return Batch(
            torch.from_numpy(ids[:-1].reshape(rows, length).copy()),
            torch.from_numpy(ids[1:].reshape(rows, length).copy()),
            torch.from_numpy(flags[1:].reshape(rows, length).copy()),
        )

    def _refill(self) -> None:
        numbers = range(self.next_document, self.next_document + DOCUMENTS_PER_REFILL)
        encoded = self._encoder.encode_batch([document(self._seed, number) for number in numbers])
        self.next_document += DOCUMENTS_PER_REFILL
        self._ids = np.concatenate([self._ids, *(ids for ids, _ in encoded)])
        self._flags = np.concatenate([self._flags, *(flags for _, flags in encoded)])
