"""What a writer is asked to do to a store, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmgr_core.store.errors import VectorError
from llmgr_core.store.records import half_precision, text_hash


@dataclass(frozen=True)
class EmbeddedText:
    """A cleaned text and what an encoder made of it; make one with ``of``.

    Attributes:
        fingerprint: the encoder's.
        text_hash: of the cleaned text (records.text_hash).
        vector: float16 [D], finite.
    """

    fingerprint: str
    text_hash: bytes
    vector: np.ndarray

    def __post_init__(self) -> None:
        if self.vector.dtype != np.float16 or not np.isfinite(self.vector).all():
            raise VectorError("only finite float16 vectors are stored", "make the text with EmbeddedText.of")

    @classmethod
    def of(cls, fingerprint: str, text: str, vector: np.ndarray) -> EmbeddedText:
        """From the text itself and a vector of any float type.

        Raises:
            VectorError: a number that half precision cannot hold.
        """
        return cls(fingerprint, text_hash(text), half_precision(vector))


@dataclass(frozen=True)
class Put:
    """Insert an item or replace it.

    Attributes:
        item_id: any string that UTF-8 can write.
        record: the item as its owner described it; opaque bytes (item_record writes and reads them).
        texts: what each encoder made of it; one, or several while encoders are being changed.
    """

    item_id: str
    record: bytes
    texts: tuple[EmbeddedText, ...]


@dataclass(frozen=True)
class Delete:
    """Make an item a tombstone, whether it was there or not."""

    item_id: str


@dataclass(frozen=True)
class Written:
    """What came of a Put or Delete.

    Attributes:
        item_id: as asked.
        sequence: the item's last change; an older one where nothing had to be written.
        changed: whether something was written.
        existed: whether the item was live before.
    """

    item_id: str
    sequence: int
    changed: bool
    existed: bool
