"""What turns an item into a vector: text cleaner and language model, under one fingerprint."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from llmgr_core.data.item import Item
from llmgr_core.store.errors import VectorError
from llmgr_core.store.records import half_precision

log = logging.getLogger(__name__)


class Cleaner(Protocol):
    """The text cleaner (llmgr_core.text.TextCleaner)."""

    def clean(self, item: Item) -> str | None: ...


class TextModel(Protocol):
    """The language model (llmgr_core.engine.SemanticEngine)."""

    def embed_texts(self, texts: list[str]) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class ItemEncoder:
    """A cleaner and a language model that belong together.

    Attributes:
        cleaner: item -> text, or None where an item has no text.
        model: texts -> float32 [n, D].
        fingerprint: of both (hex).
        dimensions: D.
        name: of the base model, for people.
        max_tokens: tokens of a text that the model reads.
        batch_tokens: padded tokens in one forward pass.
    """

    cleaner: Cleaner
    model: TextModel
    fingerprint: str
    dimensions: int
    name: str
    max_tokens: int = 128
    batch_tokens: int = 4096

    def encode(self, texts: list[str]) -> list[npt.NDArray[np.float16] | None]:
        """Vectors as they are stored, float16 [D] each; None for a text that the model gives no usable numbers for.

        One text that the model fails on takes no other down with it. The log says why it failed, without the text.
        """
        try:
            rows = self.model.embed_texts(texts)
        except Exception as error:
            if len(texts) == 1:
                # Not the traceback's last line: an engine's own message may quote the text.
                log.error("the language model failed (%s) on a text of %d characters", type(error).__name__, len(texts[0]))
                return [None]
            return [self.encode([text])[0] for text in texts]
        if rows.shape != (len(texts), self.dimensions):
            log.error("the language model gave vectors of shape %s for %d texts", rows.shape, len(texts))
            return [None] * len(texts)
        return [self._storable(row) for row in rows]

    def _storable(self, row: npt.NDArray[np.float32]) -> npt.NDArray[np.float16] | None:
        try:
            return half_precision(row)
        except VectorError as error:
            log.error("the language model gave a vector that cannot be stored: %s", error)
            return None
