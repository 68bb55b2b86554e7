"""Embedding a whole catalogue into a store, whatever of it is there already."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from llmgr_core.data.item import Item
from llmgr_core.progress import Reporter
from llmgr_core.store.errors import VectorError
from llmgr_core.store.hash_set import HashSet
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.item_record import decode_item, encode_item
from llmgr_core.store.metadata import Encoder
from llmgr_core.store.operations import EmbeddedText, Put
from llmgr_core.store.records import ItemRecord, fingerprint_key, text_hash
from llmgr_core.store.staleness import Staleness
from llmgr_core.store.writing import StoreWriter

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

    def parts(self) -> list[list[bytes]]:
        """Keys of the new texts as the language model reads them: texts of like length together, since padding costs as much
        as text."""
        keys = sorted(self.new_texts, key=lambda key: len(self.new_texts[key]))
        return [keys[start : start + PART_TEXTS] for start in range(0, len(keys), PART_TEXTS)]


class _Survey:
    """What was looked at where nothing is written: the store cannot tell."""

    def __init__(self) -> None:
        self.texts, self.items = HashSet(), HashSet()


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

    Attributes:
        report: what came of it so far.
        lost: after ``new_texts``, hashes of texts whose vector was damaged or taken out, and an item that had each. Whoever
            brings such a vector back has to write that item with it, so that readers hear of it.
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
        self._survey: _Survey | None = None
        self._failed: dict[str, None] = {}
        self._passed: set[str] = set()
        self._done = 0
        self._started = 0.0
        self.report = CatalogueReport()
        self.lost: dict[bytes, str] = {}

    def run(self, items: Iterable[tuple[Item, str | None]], total: int) -> CatalogueReport:
        """Embed.

        Args:
            items: the data set's items with their cleaned texts.
            total: how many there are, for the progress bar.

        Raises:
            VectorError: the model gave no usable numbers for some text; everything else is stored.
            StoreFullError: no space left; what was written before is kept.
        """
        self._store.register(Encoder(self._encoder.fingerprint, self._encoder.dimensions, self._encoder.name))
        for group in self._groups(items, total, "embed"):
            self._write(group)
        self.report.seconds = time.monotonic() - self._started
        if self._failed:
            shown = ", ".join(repr(one) for one in list(self._failed)[:NAMED_FAILURES])
            raise VectorError(
                f"the language model gave no usable vector for {len(self._failed)} items, for example {shown}",
                "the other items are stored; fetch the model again, or set engine.dtype to fp32",
            )
        return self.report

    def new_texts(self, items: Iterable[tuple[Item, str | None]], total: int) -> Iterator[list[str]]:
        """The texts that ``run`` would give to the language model, in the very parts in which it would; writes nothing.

        For reading them elsewhere, before: a text that has its vector by the time of ``run`` is not read again. An object of
        this class does one of the two.

        Args:
            items, total: as of ``run``.
        """
        self._survey = _Survey()
        for group in self._groups(items, total, "look through"):
            for part in group.parts():
                yield [group.new_texts[key] for key in part]
            for key in group.new_texts:
                self._survey.texts.add(key)
            self._show(len(group.items))

    def _groups(self, items: Iterable[tuple[Item, str | None]], total: int, title: str) -> Iterator[_Group]:
        """Everything there is to embed, group by group; the next one is put together when the last one was dealt with."""
        self._started = time.monotonic()
        with self._reporter.bar(title, total) as self._advance:
            for item, text in items:
                self._take_from_data(item, text)
                yield from self._take_group(full=True)
            yield from self._take_group()
        with self._reporter.bar(f"{title} items inserted since", None) as self._advance:
            # The data set's items have their vectors now; what has none came through an embedding server.
            for stored in self._store.items():
                if self._key in stored.texts or stored.item_id in self._failed or stored.item_id in self._passed:
                    continue
                if self._survey is not None and _id_hash(stored.item_id) in self._survey.items:
                    continue
                if not self._passes_over(stored.item_id, stored):
                    self._take_from_store(stored)
                    yield from self._take_group(full=True)
            yield from self._take_group()

    def _take_from_data(self, item: Item, text: str | None) -> None:
        self.report.items += 1
        if self._survey is not None:
            self._survey.items.add(_id_hash(item.item_id))
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
        if self._survey is not None and not known:
            if same:
                self.lost.setdefault(key, item_id)
            known = key in self._survey.texts
        if same and known:
            self.report.unchanged += 1
            self._show(1)
            return
        if known or key in self._group.new_texts:
            self.report.shared += 1
        else:
            self._group.new_texts[key] = text
        self._group.items.append((item_id, record, key))

    def _take_group(self, *, full: bool = False) -> Iterator[_Group]:
        """The group at hand, if there is anything in it; with ``full``, only if it is ready to be written."""
        group = self._group
        if group.items and (
            not full or len(group.new_texts) >= self._commit_texts or len(group.items) >= 4 * self._commit_texts
        ):
            self._group = _Group()
            yield group

    def _write(self, group: _Group) -> None:
        vectors: dict[bytes, npt.NDArray[np.float16] | None] = {}
        for part in group.parts():
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
        self._show(len(group.items) - len(group.new_texts))

    def _show(self, items: int) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        self._done += items
        figures = {} if self._survey is not None else {"texts_embedded": self.report.embedded}
        self._advance(items, items_per_s=self._done / seconds, **figures)


def _id_hash(item_id: str) -> bytes:
    return blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
