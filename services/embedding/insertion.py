"""From an item to its durable vector: the work behind EmbedItem, whichever method asks for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.data.item import Item
from llmgr_core.store import Delete, EmbeddedText, Put, StoreWriter, Written, fingerprint_key, text_hash
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.item_record import encode_item
from services.embedding.commit_queue import CommitQueue
from services.embedding.keyed_locks import KeyedLocks
from services.embedding.metrics import EmbeddingMetrics
from services.embedding.text_queue import TextQueue
from services.embedding.validation import no_text_left

# Cleaning longer items takes milliseconds, which would hold every other request up.
CLEAN_ELSEWHERE_BYTES = 4096


@dataclass(frozen=True)
class Insertion:
    """A stored item.

    Attributes:
        sequence: its last change.
        cached: whether the language model did not run for it.
        vector: float16 [D].
        queue_ns, model_ns, store_ns: where the time went.
    """

    sequence: int
    cached: bool
    vector: npt.NDArray[np.float16]
    queue_ns: int
    model_ns: int
    store_ns: int


class Inserter:
    """Inserts and deletes items; one call at a time for one id, in the order in which they came."""

    def __init__(
        self, encoder: ItemEncoder, store: StoreWriter, texts: TextQueue, commits: CommitQueue, metrics: EmbeddingMetrics
    ) -> None:
        self._encoder, self._store, self._texts, self._commits, self._metrics = encoder, store, texts, commits, metrics
        self._encoder_key = fingerprint_key(encoder.fingerprint)
        self._ids = KeyedLocks()

    async def insert(self, item: Item, *, bulk: bool) -> Insertion:
        """Store an item and its vector; both are on the disk when this returns.

        Args:
            item: validated.
            bulk: part of a stream (see TextQueue.encode).

        Raises:
            RequestError: no text left after cleaning, queue or disk full, or a model without a usable answer.
        """
        async with self._ids.hold(item.item_id):
            record = encode_item(item)
            if (unchanged := self._unchanged(item.item_id, record)) is not None:
                self._metrics.unchanged.inc()
                return unchanged
            text = await self._clean(item, len(record))
            if text is None:
                raise no_text_left()
            started = time.perf_counter_ns()
            key = text_hash(text)
            vector = self._store.find_vector(self._encoder.fingerprint, key)
            store_ns = time.perf_counter_ns() - started
            queue_ns = model_ns = 0
            if vector is None:
                encoded = await self._texts.encode(key, text, bulk=bulk)
                vector, queue_ns, model_ns = encoded.vector, encoded.queue_ns, encoded.model_ns
            (self._metrics.new_texts if model_ns else self._metrics.known_texts).inc()
            started = time.perf_counter_ns()
            put = Put(item.item_id, record, (EmbeddedText(self._encoder.fingerprint, key, vector),))
            written = await self._commits.write(put)
            store_ns += time.perf_counter_ns() - started
            return Insertion(written.sequence, not model_ns, vector, queue_ns, model_ns, store_ns)

    async def delete(self, item_id: str) -> Written:
        """Make an item a tombstone, durably.

        Raises:
            RequestError: disk full.
        """
        async with self._ids.hold(item_id):
            return await self._commits.write(Delete(item_id))

    def _unchanged(self, item_id: str, record: bytes) -> Insertion | None:
        """The item as stored, where it is the same record with a sound vector of this very encoder.

        The fingerprint stands for the cleaner too, so that the text need not be cleaned to know that it is the same.
        """
        started = time.perf_counter_ns()
        stored = self._store.get_item(item_id)
        if stored is None or stored.deleted or stored.record != record:
            return None
        key = stored.texts.get(self._encoder_key)
        vector = None if key is None else self._store.find_vector(self._encoder.fingerprint, key)
        if vector is None:
            return None
        return Insertion(stored.sequence, True, vector, 0, 0, time.perf_counter_ns() - started)

    async def _clean(self, item: Item, size: int) -> str | None:
        if size < CLEAN_ELSEWHERE_BYTES:
            return self._encoder.cleaner.clean(item)
        return await asyncio.to_thread(self._encoder.cleaner.clean, item)
