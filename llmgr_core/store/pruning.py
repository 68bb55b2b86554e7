"""Taking out of a store what nothing needs any more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmgr_core.store import metadata
from llmgr_core.store.errors import StoreError
from llmgr_core.store.records import (
    Buffer,
    DamagedRecordError,
    fingerprint_key,
    item_key,
    pack_item,
    sequence_key,
    sequence_of,
    unpack_change,
    unpack_item,
)
from llmgr_core.store.writing import StoreWriter

# Rows looked at in one transaction: short ones, so that inserts of a server that prunes go on in between.
BLOCK = 2000
KEPT_CHANGES = 100_000

Rows = list[tuple[bytes, bytes]]


@dataclass
class PruneReport:
    """What was dropped.

    Attributes:
        vectors: of texts that no item has any more, tombstones included, and of forgotten encoders.
        changes: that a later change of the same item stands for.
        encoders: fingerprints that were forgotten.
    """

    vectors: int = 0
    changes: int = 0
    encoders: list[str] = field(default_factory=list)


class Pruning:
    """One pruning, in short transactions, between which the same process may insert.

    What a reader of the change log has to know stays: the newest change of every item, and the last ``keep_changes`` whole.

    Args:
        store: opened for writing.
        keep_changes: newest changes that all stay.
        forget: fingerprints of encoders whose vectors go, none of them the active one.

    Attributes:
        report: what was dropped so far.

    Raises:
        StoreError: an encoder to forget is the active one, or unknown.
    """

    def __init__(self, store: StoreWriter, keep_changes: int = KEPT_CHANGES, forget: Sequence[str] = ()) -> None:
        self._store, self._keep_changes, self._forget = store, keep_changes, forget
        self.report = PruneReport()
        known = {encoder.fingerprint for encoder in store.encoders()}
        for fingerprint in forget:
            if fingerprint not in known:
                raise StoreError(f"{store.path} knows no encoder {fingerprint[:12]}", "`llmgr store info` lists them")
            if fingerprint == store.active_fingerprint():
                raise StoreError(f"encoder {fingerprint[:12]} is the active one", "activate another one first")

    def run(self) -> PruneReport:
        """Do all of it."""
        for _ in self.blocks():
            pass
        return self.report

    def blocks(self) -> Iterator[None]:
        """Do one short transaction each time the next element is asked for.

        Raises:
            StoreFullError: no space left on the disk; what was done before stays done.
        """
        for fingerprint in self._forget:
            yield from self._forget_encoder(fingerprint)
        yield from self._drop_vectors()
        yield from self._drop_changes()

    def _forget_encoder(self, fingerprint: str) -> Iterator[None]:
        encoder, meta = fingerprint_key(fingerprint), self._store.database("meta")

        def without(transaction: Any, rows: Rows) -> int:
            for key, row in rows:
                try:
                    item = unpack_item(row)
                except DamagedRecordError:
                    continue
                if encoder in item.texts:
                    texts = {one: text for one, text in item.texts.items() if one != encoder}
                    transaction.put(key, pack_item(item._replace(texts=texts)), db=self._store.database("items"))
            return 0

        for _ in self._each_block("items", without):
            yield
        self._store.transact(lambda transaction: metadata.forget_encoder(transaction, meta, fingerprint))
        self.report.encoders.append(fingerprint)
        yield

    def _drop_vectors(self) -> Iterator[None]:
        vectors, items = self._store.database("vectors"), self._store.database("items")
        used: set[bytes] = set()
        with self._store.transaction() as transaction:
            seen = self._store.newest_in(transaction)
            for _, row in transaction.cursor(db=items):
                used |= _texts_of(row)

        def drop(transaction: Any, rows: Rows) -> int:
            nonlocal seen
            # A text that came back since the items were looked at took its old vector, which must stay.
            for change in self._store.changes_in(transaction, seen, sys.maxsize):
                row = transaction.get(item_key(change.item_id), db=items)
                used.update(_texts_of(row) if row is not None else ())
                seen = change.sequence
            unused = [key for key, _ in rows if key not in used]
            for key in unused:
                transaction.delete(key, db=vectors)
            return len(unused)

        for dropped in self._each_block("vectors", drop):
            self.report.vectors += dropped
            yield

    def _drop_changes(self) -> Iterator[None]:
        changes, items, meta = (self._store.database(name) for name in ("changes", "items", "meta"))
        last = max(self._store.sequence() - self._keep_changes, 0)

        def drop(transaction: Any, rows: Rows) -> int:
            dropped = []
            for key, row in rows:
                sequence = sequence_of(key)
                try:
                    current = transaction.get(item_key(unpack_change(key, row).item_id), db=items)
                    superseded = current is not None and unpack_item(current).sequence > sequence
                except DamagedRecordError:
                    continue
                if superseded:
                    transaction.delete(key, db=changes)
                    dropped.append(sequence)
            if dropped:
                metadata.write_pruned(transaction, meta, dropped[-1])
            return len(dropped)

        for dropped in self._each_block("changes", drop, sequence_key(last)):
            self.report.changes += dropped
            yield

    def _each_block(self, database: str, action: Callable[[Any, Rows], int], last: bytes | None = None) -> Iterator[int]:
        """Give ``action`` the rows of a database, up to key ``last``, a block and a transaction at a time; what it returns."""
        after: bytes | None = None

        def block(transaction: Any) -> tuple[bytes, int] | None:
            cursor = transaction.cursor(db=self._store.database(database))
            found = cursor.first() if after is None else cursor.set_range(after + b"\x00")
            rows: Rows = []
            for key, value in cursor if found else ():
                if len(rows) == BLOCK or (last is not None and bytes(key) > last):
                    break
                rows.append((bytes(key), bytes(value)))
            return (rows[-1][0], action(transaction, rows)) if rows else None

        while (done := self._store.transact(block)) is not None:
            after, result = done
            yield result


def _texts_of(row: Buffer) -> set[bytes]:
    """Keys of the vectors that an item has; of a damaged one, none."""
    try:
        return {encoder + text for encoder, text in unpack_item(row).texts.items()}
    except DamagedRecordError:
        return set()
