"""Taking what is damaged out of a store, so that it is embedded or inserted again, and saying what that was."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmgr_core.store import environment as environments
from llmgr_core.store import metadata
from llmgr_core.store.environment import Environment
from llmgr_core.store.records import (
    DamagedRecordError,
    ItemRecord,
    Operation,
    item_key,
    last_change,
    pack_change,
    pack_item,
    sequence_key,
    sequence_of,
    unpack_change,
    unpack_item_at,
    vector_payload,
)
from llmgr_core.store.writer_lock import WriterLock
from llmgr_core.store.writing import StoreWriter


@dataclass
class RepairReport:
    """What was done.

    Attributes:
        metadata: what the store says about itself that had to be written anew, a line each.
        vectors: vector records that were dropped (encoder key and text hash, hex).
        embed_again: live items that lost a vector by it. `llmgr embed`, and an embedding server in the background, give them
            a new one.
        insert_again: items whose own record was dropped: what they were is lost, and only who owns them can insert them again
            (`llmgr embed`, for those of the data set).
        changes: places of the change log that were dropped or written anew from the items.
    """

    metadata: list[str] = field(default_factory=list)
    vectors: list[str] = field(default_factory=list)
    embed_again: list[str] = field(default_factory=list)
    insert_again: list[str] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        return not (self.metadata or self.vectors or self.embed_again or self.insert_again or self.changes)


def repair_store(path: Path) -> RepairReport:
    """Drop every damaged record, in one transaction, and mend what hangs on them; a sound store stays as it is.

    Raises:
        StoreDamagedError: the pages of the file do not hang together.
        StoreLockedError: another process writes to the store.
        StoreFullError: no space left on the disk; nothing was done.
    """
    mended = _mended_metadata(path)
    with StoreWriter.open(path) as store:
        report = store.transact(lambda transaction: _Repair(store, transaction).run())
    report.metadata = mended
    return report


def _mended_metadata(path: Path) -> list[str]:
    """Mend what keeps a store from being opened at all."""
    lock = WriterLock(path)
    try:
        environment: Environment = environments.acquire(path, writable=True)
        try:
            meta = environment.database("meta")
            with environment.read() as transaction:
                if metadata.is_whole(transaction, meta):
                    return []
            with environment.write() as transaction:
                return metadata.mend(transaction, meta)
        finally:
            environments.release(environment)
    finally:
        lock.release()


class _Repair:
    """One repair, inside one transaction."""

    def __init__(self, store: StoreWriter, transaction: Any) -> None:
        self._transaction = transaction
        self._vectors, self._items, self._changes, self._meta = (
            store.database(name) for name in ("vectors", "items", "changes", "meta")
        )
        self._report = RepairReport()

    def run(self) -> RepairReport:
        sound = self._drop_bad_vectors()
        items = self._mend_items(sound)
        self._mend_changes(items)
        live = sum(not item.deleted for item in items.values())
        if live != metadata.read_live(self._transaction, self._meta):
            metadata.write_live(self._transaction, self._meta, live)
        return self._report

    def _drop_bad_vectors(self) -> set[bytes]:
        encoders = metadata.read_encoders(self._transaction, self._meta)
        sound, bad = set(), []
        for key, value in self._transaction.cursor(db=self._vectors):
            try:
                encoder = encoders.get(bytes(key[:16]))
                whole = len(vector_payload(value)) == 2 * (encoder.dimensions if encoder else -1)
            except DamagedRecordError:
                whole = False
            if whole:
                sound.add(bytes(key))
            else:
                bad.append(bytes(key))
        for key in bad:
            self._transaction.delete(key, db=self._vectors)
            self._report.vectors.append(key.hex())
        return sound

    def _mend_items(self, vectors: set[bytes]) -> dict[str, ItemRecord]:
        """The sound items by id, each without the vectors it no longer has; the others are dropped."""
        items: dict[str, ItemRecord] = {}
        bad: list[bytes] = []
        mended: list[ItemRecord] = []
        for key, value in self._transaction.cursor(db=self._items):
            try:
                item = unpack_item_at(key, value)
            except DamagedRecordError:
                bad.append(bytes(key))
                continue
            kept = {encoder: text for encoder, text in item.texts.items() if encoder + text in vectors}
            if len(kept) < len(item.texts):
                item = item._replace(texts=kept)
                mended.append(item)
                if not item.deleted:
                    self._report.embed_again.append(item.item_id)
            items[item.item_id] = item
        for item in mended:
            self._put_item(item)
        for key in bad:
            self._transaction.delete(key, db=self._items)
            self._report.insert_again.append(_shown(key))
        return items

    def _mend_changes(self, items: dict[str, ItemRecord]) -> None:
        by_sequence = {item.sequence: item for item in items.values()}
        drop: dict[bytes, int] = {}
        good: set[int] = set()
        newest = 0
        for key, value in self._transaction.cursor(db=self._changes):
            sequence = newest = sequence_of(key)
            try:
                change = unpack_change(key, value)
                item = items.get(change.item_id)
            except DamagedRecordError:
                item = None
            if item is None or sequence > item.sequence:
                drop[bytes(key)] = sequence
            elif sequence == item.sequence and (change.operation is Operation.DELETE) == item.deleted:
                good.add(sequence)
        for raw in drop:
            self._transaction.delete(raw, db=self._changes)
        for sequence in sorted(by_sequence.keys() - good):
            self._put_change(by_sequence[sequence])
        # Two items at one place: the second takes a new one, at the end.
        newest = max([newest, *by_sequence])
        for item in items.values():
            if by_sequence[item.sequence] is not item:
                newest += 1
                moved = item._replace(sequence=newest)
                self._put_item(moved)
                self._put_change(moved)
        self._report.changes = sorted({*drop.values(), *(by_sequence.keys() - good)})
        gone = [sequence for sequence in drop.values() if sequence not in by_sequence]
        if gone:
            metadata.write_pruned(self._transaction, self._meta, max(gone))

    def _put_item(self, item: ItemRecord) -> None:
        self._transaction.put(item_key(item.item_id), pack_item(item), db=self._items)

    def _put_change(self, item: ItemRecord) -> None:
        self._transaction.put(sequence_key(item.sequence), pack_change(last_change(item)), db=self._changes)


def _shown(key: bytes) -> str:
    """The id in a key of database items; an id too long for a key is not in it."""
    return key[1:].decode("utf-8", errors="replace") if key[:1] == b"\x00" else f"(long id, hash {key[1:].hex()})"
