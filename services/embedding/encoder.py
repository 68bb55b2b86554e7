"""What turns an item into a vector: text cleaner and language model, under one fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from llmgr_core.data.item import Item


class Cleaner(Protocol):
    """The text cleaner (llmgr_core.text.TextCleaner)."""

    def clean(self, item: Item) -> str | None: ...


class TextModel(Protocol):
    """The language model (llmgr_core.engine.SemanticEngine)."""

    def embed_texts(self, texts: list[str]) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class ServedEncoder:
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
