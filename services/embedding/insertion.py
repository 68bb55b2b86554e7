"""From an item to its durable vector: the work behind EmbedItem, whichever method asks for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.data.item import Item
from llmgr_core.store import Delete, EmbeddedText, ItemRecord, Put, StoreWriter, Written, fingerprint_key, text_hash
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.item_record import decode_item, encode_item
from services.embedding.byte_budget import ByteBudget
from services.embedding.commit_queue import CommitQueue
from services.embedding.keyed_locks import KeyedLocks
from services.embedding.metrics import EmbeddingMetrics
from services.embedding.text_queue import TextQueue
from services.embedding.validation import no_text_left
from services.server.errors import overloaded

log = logging.getLogger(__name__)
# Cleaning longer items takes milliseconds, which would hold every other request up.
CLEAN_ELSEWHERE_BYTES = 4096


@dataclass(frozen=True)
class Insertion:
    """A stored item.

    Attributes:
        sequence: its last change.
        cached: whether the language model did not run for it.
        vector: float16 [D].
        fingerprint: of the encoder that made it.
        queue_ns, model_ns, store_ns: where the time went.
    """

    sequence: int
    cached: bool
    vector: npt.NDArray[np.float16]
    fingerprint: str
    queue_ns: int
    model_ns: int
    store_ns: int


class ServedEncoder:
    """An encoder, the queue of its language model, and its key in the store.

    Attributes:
        required: an insert that it cannot embed is refused, as if it were the active one.
        left_out: of the one that shall become the active one, ids of inserts that it has failed on, some of them still on their
            way to the disk (see Inserter.settled); None where nobody asks.
    """

    def __init__(self, encoder: ItemEncoder, texts: TextQueue) -> None:
        self.encoder, self.texts = encoder, texts
        self.fingerprint = encoder.fingerprint
        self.key = fingerprint_key(encoder.fingerprint)
        self.required = False
        self.left_out: set[str] | None = None


@dataclass(frozen=True)
class _Encoded:
    text: EmbeddedText
    queue_ns: int
    model_ns: int
    store_ns: int


def _made(result: _Encoded | BaseException | None) -> _Encoded:
    """What came of encoding an item, where that is a vector; else what is wrong is raised."""
    if isinstance(result, BaseException):
        raise result
    if result is None:
        raise no_text_left()
    return result


class Inserter:
    """Inserts and deletes items; one call at a time for one id, in the order in which they came.

    Args:
        encoders: the active one first; after it the one that shall become, or has been, the active one. Each insert is written
            under all of them. What the first or a required one cannot embed is refused; what only another cannot is left to
            the background.
        store: read here, written through ``commits``.
        call_bytes: records of the items that single calls have in work at a time; streams have a bound of their own.
    """

    def __init__(
        self,
        encoders: Sequence[ServedEncoder],
        store: StoreWriter,
        commits: CommitQueue,
        metrics: EmbeddingMetrics,
        call_bytes: int,
    ) -> None:
        self._encoders, self._store, self._commits, self._metrics = list(encoders), store, commits, metrics
        self._call_bytes = ByteBudget(call_bytes)
        self._ids = KeyedLocks()

    @property
    def active(self) -> ServedEncoder:
        """The encoder whose vectors are answered."""
        return self._encoders[0]

    def make_active(self, chosen: ServedEncoder) -> None:
        """Answer with this encoder's vectors from now on; the others are written as before."""
        self._encoders.sort(key=lambda one: one is not chosen)

    async def insert(self, item: Item, *, bulk: bool) -> Insertion:
        """Store an item and its vectors; all are on the disk when this returns.

        Args:
            item: validated.
            bulk: part of a stream (see TextQueue.encode).

        Raises:
            RequestError: no text left after cleaning, queue or disk full, or a model without a usable answer.
        """
        record = encode_item(item)
        waits = self._ids.held(item.item_id)
        # Never refused for want of room: it is answered before anybody else's turn, and holds nothing.
        if not waits and (unchanged := self._unchanged(item.item_id, record)) is not None:
            return unchanged
        if bulk:
            return await self._insert(item, record, bulk=True, look_again=waits)
        if waits:
            self._bring_forward(item, len(record))
        with self._call_bytes.held_at_once(len(record)) as room:
            if not room:
                self._metrics.refused_calls.inc()
                raise overloaded("the items of the calls under way are too large together", self.active.texts.expected_wait())
            return await self._insert(item, record, bulk=False, look_again=waits)

    async def _insert(self, item: Item, record: bytes, *, bulk: bool, look_again: bool) -> Insertion:
        """``insert`` of an item that was a changed one when it came; ``look_again`` where another insert of it is under way."""
        async with self._ids.hold(item.item_id):
            active, *others = self._encoders
            if look_again and (unchanged := self._unchanged(item.item_id, record)) is not None:
                return unchanged
            first, *rest = await asyncio.gather(
                self._encode(active, item, len(record), bulk=bulk),
                *(self._encode(one, item, len(record), bulk=bulk) for one in others),
                return_exceptions=True,
            )
            first = _made(first)
            for one, made in zip(others, rest, strict=True):
                # Asked only now: it may have become so while the models read.
                if one.required:
                    _made(made)
                elif isinstance(made, BaseException) and one.left_out is not None:
                    one.left_out.add(item.item_id)
            (self._metrics.new_texts if first.model_ns else self._metrics.known_texts).inc()
            texts = (first.text, *(one.text for one in rest if isinstance(one, _Encoded)))
            started = time.perf_counter_ns()
            written = await self._commits.write(Put(item.item_id, record, texts))
            store_ns = first.store_ns + time.perf_counter_ns() - started
            cached = not first.model_ns
            vector = first.text.vector
            return Insertion(written.sequence, cached, vector, active.fingerprint, first.queue_ns, first.model_ns, store_ns)

    async def fill(self, item_id: str, encoder: ServedEncoder) -> bool:
        """Give a stored item its vector of one encoder, behind everything that callers wait for.

        Returns:
            whether it has one now; False where there is no text for it. An item that is gone meanwhile needs none.

        Raises:
            RequestError: the model gives no usable numbers for it, or the disk is full.
        """
        stored = self._store.get_item(item_id)
        if stored is None or stored.deleted or self._vector(stored, encoder) is not None:
            return True
        # Not under the id's lock: whoever edits or deletes the item meanwhile need not wait for the model.
        encoded = await self._encode(encoder, decode_item(item_id, stored.record), len(stored.record), bulk=True)
        if encoded is None:
            return False
        async with self._ids.hold(item_id):
            now = self._store.get_item(item_id)
            if now is not None and not now.deleted and now.record == stored.record:
                await self._commits.write(Put(item_id, stored.record, (encoded.text,)))
            return True

    async def settled(self, item_ids: Iterable[str]) -> None:
        """Wait until inserts of these items that are under way have ended."""
        for item_id in item_ids:
            async with self._ids.hold(item_id):
                pass

    async def delete(self, item_id: str) -> Written:
        """Make an item a tombstone, durably.

        Raises:
            RequestError: disk full.
        """
        async with self._ids.hold(item_id):
            return await self._commits.write(Delete(item_id))

    def _unchanged(self, item_id: str, record: bytes) -> Insertion | None:
        """The item as stored, where it is the same record with a sound vector of the active encoder, and known to the others.

        The fingerprint stands for the cleaner too, so that the text need not be cleaned to know that it is the same. What lacks
        another encoder's vector gets it in the background: no caller waits for a model whose vectors nobody reads yet.
        """
        started = time.perf_counter_ns()
        stored = self._store.get_item(item_id)
        if stored is None or stored.deleted or stored.record != record:
            return None
        vector = self._vector(stored, self.active)
        if vector is None:
            return None
        self._metrics.unchanged.inc()
        spent = time.perf_counter_ns() - started
        return Insertion(stored.sequence, True, vector, self.active.fingerprint, 0, 0, spent)

    def _bring_forward(self, item: Item, size: int) -> None:
        """Have the item's text read soon, should it be one that a stream has brought under the same id.

        Nothing is waited for here, which would let later calls overtake this one.
        """
        for one in self._encoders if size < CLEAN_ELSEWHERE_BYTES else ():
            text = one.encoder.cleaner.clean(item)
            if text is not None:
                one.texts.bring_forward(text_hash(text))

    def _vector(self, stored: ItemRecord, encoder: ServedEncoder) -> npt.NDArray[np.float16] | None:
        key = stored.texts.get(encoder.key)
        return None if key is None else self._store.find_vector(encoder.fingerprint, key)

    async def _encode(self, served: ServedEncoder, item: Item, size: int, *, bulk: bool) -> _Encoded | None:
        """The item's text and vector; None where cleaning leaves no text."""
        text = await self._clean(served, item, size)
        if text is None:
            return None
        started = time.perf_counter_ns()
        key = text_hash(text)
        vector = self._store.find_vector(served.fingerprint, key)
        store_ns = time.perf_counter_ns() - started
        if vector is not None:
            return _Encoded(EmbeddedText(served.fingerprint, key, vector), 0, 0, store_ns)
        encoded = await served.texts.encode(key, text, bulk=bulk)
        embedded = EmbeddedText(served.fingerprint, key, encoded.vector)
        return _Encoded(embedded, encoded.queue_ns, encoded.model_ns, store_ns)

    async def _clean(self, served: ServedEncoder, item: Item, size: int) -> str | None:
        if size < CLEAN_ELSEWHERE_BYTES:
            return served.encoder.cleaner.clean(item)
        return await asyncio.to_thread(served.encoder.cleaner.clean, item)
