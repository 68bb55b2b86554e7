"""A store that is a copy of another host's store, and follows its changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmgr_core.store import metadata
from llmgr_core.store.change_blocks import UNKNOWN_SUM, ChangeBlock, Description, Row, change_sum
from llmgr_core.store.errors import StoreError
from llmgr_core.store.place import DATA_NAME
from llmgr_core.store.reading import EmbeddingStore
from llmgr_core.store.records import sequence_key, sequence_of, unpack_item
from llmgr_core.store.writing import StoreWriter


class DivergedError(Exception):
    """A block does not continue the replica: only a whole copy of the source brings them together again.

    Attributes:
        reason: "other_source", "gap" (changes in between are missing) or "other_history".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ReplicaStore:
    """The replica of a directory, opened for writing.

    Args:
        path: its directory, which holds a replica, or a plain copy of the source's store that nobody writes to.

    Attributes:
        epoch: of the source.
        position: sequence up to which it holds the source's changes.

    Raises:
        StoreError, StoreDamagedError, StoreLockedError: see StoreWriter.open.
    """

    def __init__(self, path: Path) -> None:
        self.writer = StoreWriter.open(path, replica=True)
        self.epoch = self.writer.epoch
        with self.writer.transaction() as transaction:
            marked = metadata.read_replicated(transaction, self.writer.database("meta"))
            self.position = self.writer.newest_in(transaction) if marked is None else marked
        self.marked = marked is not None

    def close(self) -> None:
        self.writer.close()

    def apply(self, blocks: Sequence[ChangeBlock]) -> int:
        """Apply blocks that follow each other, in one durable transaction; returns how many changes were new.

        Raises:
            DivergedError: they do not continue this replica; nothing was done.
            StoreFullError: no space left on the disk; nothing was done.
        """
        position, new = self.writer.transact(lambda transaction: self._apply(transaction, blocks))
        self.position = position
        self.marked = True
        return new

    def _apply(self, transaction: Any, blocks: Sequence[ChangeBlock]) -> tuple[int, int]:
        position, new, live = self.position, 0, 0
        for block in blocks:
            self._require_continues(transaction, block, position)
            if block.sequence > position:
                fresh = [row for row in block.rows.get("changes", ()) if sequence_of(row[0]) > position]
                self._put(transaction, "vectors", block.rows.get("vectors", ()))
                live += self._put_items(transaction, block.rows.get("items", ()))
                self._put(transaction, "changes", fresh)
                self._note_gap(transaction, position, block.sequence, len(fresh))
                position, new = block.sequence, new + len(fresh)
        if blocks:
            describe(self.writer, transaction, blocks[-1].description)
        meta = self.writer.database("meta")
        if live:
            metadata.write_live(transaction, meta, metadata.read_live(transaction, meta) + live)
        if position != self.position or not self.marked:
            metadata.write_replicated(transaction, meta, position)
        return position, new

    def _require_continues(self, transaction: Any, block: ChangeBlock, position: int) -> None:
        if block.epoch != self.epoch:
            raise DivergedError("other_source", f"the changes are those of store {block.epoch}, not of {self.epoch}")
        if block.after > position:
            raise DivergedError("gap", f"the changes from {position + 1} to {block.after} are not there any more")
        pairs = [(block.after, block.after_sum)] if block.after == position else []
        if block.sequence == position:
            pairs.append((block.sequence, block.sequence_sum))
        for sequence, expected in pairs:
            own = change_sum(self.writer, transaction, sequence)
            if UNKNOWN_SUM not in (own, expected) and own != expected:
                raise DivergedError("other_history", f"change {sequence} is another one here than at the source")
        for key, value in block.rows.get("changes", ()):
            if sequence_of(key) > position:
                break
            here = transaction.get(key, db=self.writer.database("changes"))
            if here is not None and bytes(here) != value:
                raise DivergedError("other_history", f"change {sequence_of(key)} is another one here than at the source")

    def _put(self, transaction: Any, database: str, rows: Sequence[Row]) -> None:
        handle = self.writer.database(database)
        for key, value in rows:
            transaction.put(key, value, db=handle)

    def _put_items(self, transaction: Any, rows: Sequence[Row]) -> int:
        """How many more items are live now."""
        handle, more = self.writer.database("items"), 0
        for key, value in rows:
            item = unpack_item(value)
            stood = transaction.get(key, db=handle) is not None
            old = self.writer.item_in(transaction, item.item_id) if stood else None
            if old is not None and old.sequence >= item.sequence:
                continue
            # A damaged row was counted when it was written.
            was_live = stood if old is None else not old.deleted
            more += (not item.deleted) - was_live
            transaction.put(key, value, db=handle)
        return more

    def _note_gap(self, transaction: Any, position: int, reached: int, changes: int) -> None:
        """The source's own log had gaps there: changes that were pruned, or damaged."""
        if changes == reached - position:
            return
        changes_db = self.writer.database("changes")
        missing = (
            place for place in range(reached, position, -1) if transaction.get(sequence_key(place), db=changes_db) is None
        )
        last = next(missing, None)
        if last is not None:
            metadata.write_pruned(transaction, self.writer.database("meta"), last)


def describe(writer: StoreWriter, transaction: Any, description: Description) -> None:
    """Let a replica say of itself what its source says; encoders that the source forgot stay until they are pruned."""
    meta = writer.database("meta")
    known = metadata.read_encoders(transaction, meta).values()
    for encoder in description.encoders:
        if encoder not in known:
            metadata.write_encoder(transaction, meta, encoder)
    if description.active is not None and description.active != metadata.read_active(transaction, meta):
        metadata.write_active(transaction, meta, description.active)


def require_replaceable(path: Path) -> None:
    """Look at what stands in a directory before a whole copy of a source takes its place.

    Raises:
        StoreError: a store with items that is no replica: its own changes would be lost.
    """
    if not (path / DATA_NAME).is_file():
        return
    with EmbeddingStore.open(path, check_structure=False) as store, store.transaction() as transaction:
        if metadata.read_replicated(transaction, store.database("meta")) is None and store.newest_in(transaction):
            raise StoreError(
                f"{path} is a store of its own with {store.newest_in(transaction)} changes, no replica of this source",
                "give another directory with --store, or take this one away",
            )


def promote(path: Path) -> str:
    """Make a replica a store of its own, for an embedding host that is lost; returns its new epoch.

    Raises:
        StoreError: it is no replica.
        StoreLockedError: its replica process runs.
    """
    with StoreWriter.open(path, replica=True) as store:
        meta = store.database("meta")

        def make_own(transaction: Any) -> None:
            if metadata.read_replicated(transaction, meta) is None:
                raise StoreError(f"{path} is no replica", "it can be written to as it is")
            metadata.write_own(transaction, meta)

        store.transact(make_own)
    with EmbeddingStore.open(path) as promoted:
        return promoted.epoch
