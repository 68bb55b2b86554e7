"""Vectors that language models elsewhere made of a catalogue's new texts, written before the items that have those texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from llmgr_core.store.catalogue import CatalogueReport
from llmgr_core.store.operations import EmbeddedText, Put
from llmgr_core.store.writing import StoreWriter


class VectorIntake:
    """Takes vectors in any order and writes them in groups; ``CatalogueEmbedding.run`` gives them to the items afterwards.

    Args:
        store: opened for writing.
        fingerprint: of the encoder.
        commit_texts: vectors between two durable writes, at least.
        lost: see ``CatalogueEmbedding.lost``.

    Attributes:
        texts: taken.
        failed: of them, those without a usable vector.
        renewed: vectors that had been there before and were lost.
    """

    def __init__(self, store: StoreWriter, fingerprint: str, commit_texts: int, lost: Mapping[bytes, str]) -> None:
        self._store, self._fingerprint, self._commit_texts, self._lost = store, fingerprint, commit_texts, lost
        self._waiting: list[EmbeddedText] = []
        self.texts = self.failed = self.renewed = 0

    def take(self, text_hash: bytes, vector: npt.NDArray[np.float16] | None) -> None:
        """One more, float16 [D]; None where the model gave nothing usable.

        Raises:
            StoreFullError, VectorError: as of ``StoreWriter.write``.
        """
        self.texts += 1
        if vector is None:
            self.failed += 1
            return
        self._waiting.append(EmbeddedText(self._fingerprint, text_hash, vector))
        if len(self._waiting) >= self._commit_texts:
            self.commit()

    def commit(self) -> None:
        """Write what was taken since the last time."""
        waiting, self._waiting = self._waiting, []
        self._store.put_vectors([text for text in waiting if text.text_hash not in self._lost])
        renewed = []
        for text in waiting:
            item = self._store.get_item(self._lost[text.text_hash]) if text.text_hash in self._lost else None
            if item is not None:
                renewed.append(Put(item.item_id, item.record, (text,)))
        if renewed:
            self._store.write(renewed)
            self.renewed += len(renewed)

    def added_to(self, report: CatalogueReport) -> CatalogueReport:
        """What ``run`` would have reported had it read the texts itself, from what it reported."""
        taken = self.texts - self.failed - self.renewed
        return replace(
            report, embedded=self.texts, shared=max(report.shared - taken, 0), unchanged=report.unchanged - self.renewed
        )
