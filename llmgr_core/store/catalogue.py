"""Embedding a whole catalogue into a store, whatever of it is there already."""

from __future__ import annotations

import time
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llmgr_core.data.item import Item
from llmgr_core.progress import Reporter
from llmgr_core.store.errors import VectorError
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.item_record import decode_item, encode_item
from llmgr_core.store.metadata import Encoder
from llmgr_core.store.records import ItemRecord, fingerprint_key, text_hash
from llmgr_core.store.staleness import Staleness
from llmgr_core.store.writing import EmbeddedText, Put, StoreWriter

NAMED_FAILURES = 10
# Texts that go to the language model together; the progress bar moves after each such part.
PART_TEXTS = 64


@dataclass
class CatalogueReport:
    """What came of it.

    Attributes:
        items: items looked at.
        unchanged: had their vector already.
        embedded: texts the language model read.
        shared: items that took the vector of a text known from another item or an earlier run.
        without_text: items of which cleaning leaves no text; they rank by their ID alone.
        deleted: items of the data set that are tombstones in the store; they stay so.
        left_out: items that were not to be embedded.
        young: items that keep the vector of another encoder, which is not stale yet.
        seconds: time taken.
    """

    items: int = 0
    unchanged: int = 0
    embedded: int = 0
    shared: int = 0
    without_text: int = 0
    deleted: int = 0
    left_out: int = 0
    young: int = 0
    seconds: float = 0.0


@dataclass
class _Group:
    """Items of the next durable write, and the texts among them that the language model has to read."""

    items: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    new_texts: dict[bytes, str] = field(default_factory=dict)


class CatalogueEmbedding:
    """Gives every item of a data set, and every item of the store, its vector of one encoder.

    The store's own record goes before the data set's: an item that was edited or deleted since the data set was prepared stays
    as it is. What was done before a run was cut off is not done again, since a text with a vector needs no language model.

    Args:
        encoder: cleaner and language model.
        store: opened for writing.
        commit_texts: new texts between two durable writes.
        reporter: gets the progress.
        overwrite: let the data set's records replace the store's, and bring deleted items back.
        leave_out: ids of items that are not embedded.
        staleness: embed only items that are new to the store or stale; None embeds whatever has no vector of this encoder.
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        store: StoreWriter,
        commit_texts: int,
        reporter: Reporter,
        *,
        overwrite: bool = False,
        leave_out: Set[str] = frozenset(),
        staleness: Staleness | None = None,
    ) -> None:
        self._encoder, self._store, self._commit_texts, self._reporter = encoder, store, commit_texts, reporter
        self._overwrite, self._leave_out, self._staleness = overwrite, leave_out, staleness
        self._key = fingerprint_key(encoder.fingerprint)
        self._group = _Group()
        self._failed: dict[str, None] = {}
        self._passed: set[str] = set()
        self._done = 0
        self.report = CatalogueReport()

    def run(self, items: Iterable[tuple[Item, str | None]], total: int) -> CatalogueReport:
        """Embed.

        Args:
            items: the data set's items with their cleaned texts.
            total: how many there are, for the progress bar.

        Raises:
            VectorError: the model gave no usable numbers for some text; everything else is stored.
            StoreFullError: no space left; what was written before is kept.
        """
        started = self._started = time.monotonic()
        self._store.register(Encoder(self._encoder.fingerprint, self._encoder.dimensions, self._encoder.name))
        with self._reporter.bar("embed", total) as self._advance:
            for item, text in items:
                self._take_from_data(item, text)
                self._flush_if_full()
            self._flush()
        with self._reporter.bar("embed items inserted since", None) as self._advance:
            # The data set's items have their vectors now; what has none came through an embedding server.
            for stored in self._store.items():
                if self._key in stored.texts or stored.item_id in self._failed or stored.item_id in self._passed:
                    continue
                if not self._passes_over(stored.item_id, stored):
                    self._take_from_store(stored)
                    self._flush_if_full()
            self._flush()
        self.report.seconds = time.monotonic() - started
        if self._failed:
            shown = ", ".join(repr(one) for one in list(self._failed)[:NAMED_FAILURES])
            raise VectorError(
                f"the language model gave no usable vector for {len(self._failed)} items, for example {shown}",
                "the other items are stored; fetch the model again, or set engine.dtype to fp32",
            )
        return self.report

    def _take_from_data(self, item: Item, text: str | None) -> None:
        self.report.items += 1
        record = encode_item(item)
        stored = self._store.get_item(item.item_id)
        if self._passes_over(item.item_id, stored):
            return
        if stored is None or self._overwrite:
            self._take(item.item_id, record, text, stored)
        elif stored.deleted:
            self.report.deleted += 1
            self._show(1)
        else:
            if stored.record != record:
                text = self._encoder.cleaner.clean(decode_item(item.item_id, stored.record))
            self._take(item.item_id, stored.record, text, stored)

    def _passes_over(self, item_id: str, stored: ItemRecord | None) -> bool:
        left_out = item_id in self._leave_out
        young = (
            self._staleness is not None
            and stored is not None
            and not (stored.deleted or self._overwrite or self._key in stored.texts)
            and not self._staleness.stale(stored)
        )
        if not (left_out or young):
            return False
        self._passed.add(item_id)
        if left_out:
            self.report.left_out += 1
        else:
            self.report.young += 1
        self._show(1)
        return True

    def _take_from_store(self, stored: ItemRecord) -> None:
        self.report.items += 1
        text = self._encoder.cleaner.clean(decode_item(stored.item_id, stored.record))
        self._take(stored.item_id, stored.record, text, stored)

    def _take(self, item_id: str, record: bytes, text: str | None, stored: ItemRecord | None) -> None:
        if text is None:
            self.report.without_text += 1
            self._show(1)
            return
        key = text_hash(text)
        known = self._store.known_texts(self._encoder.fingerprint, [key])[0]
        same = stored is not None and not stored.deleted and stored.record == record and stored.texts.get(self._key) == key
        if same and known:
            self.report.unchanged += 1
            self._show(1)
            return
        if known or key in self._group.new_texts:
            self.report.shared += 1
        else:
            self._group.new_texts[key] = text
        self._group.items.append((item_id, record, key))

    def _flush_if_full(self) -> None:
        if len(self._group.new_texts) >= self._commit_texts or len(self._group.items) >= 4 * self._commit_texts:
            self._flush()

    def _flush(self) -> None:
        group, self._group = self._group, _Group()
        if not group.items:
            return
        vectors: dict[bytes, npt.NDArray[np.float16] | None] = {}
        # Texts of like length together: padding costs as much as text.
        keys = sorted(group.new_texts, key=lambda key: len(group.new_texts[key]))
        for start in range(0, len(keys), PART_TEXTS):
            part = keys[start : start + PART_TEXTS]
            vectors.update(zip(part, self._encoder.encode([group.new_texts[key] for key in part]), strict=True))
            self.report.embedded += len(part)
            self._show(len(part))
        puts = []
        for item_id, record, key in group.items:
            vector = vectors[key] if key in vectors else self._store.find_vector(self._encoder.fingerprint, key)
            if vector is None:
                self._failed[item_id] = None
            else:
                puts.append(Put(item_id, record, (EmbeddedText(self._encoder.fingerprint, key, vector),)))
        self._store.write(puts)
        self._show(len(group.items) - len(keys))

    def _show(self, items: int) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        self._done += items
        self._advance(items, items_per_s=self._done / seconds, texts_embedded=self.report.embedded)
