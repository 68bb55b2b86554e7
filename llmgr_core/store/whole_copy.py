"""A whole store in parts, for a replica that cannot go on from where it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmgr_core.store import metadata
from llmgr_core.store.change_blocks import MOST_BYTES, Description, Row, require_sound_rows
from llmgr_core.store.environment import DATABASES
from llmgr_core.store.errors import StoreDamagedError
from llmgr_core.store.place import DATA_NAME, put_in_place
from llmgr_core.store.reading import EmbeddingStore
from llmgr_core.store.records import DamagedRecordError
from llmgr_core.store.replica import describe, require_replaceable
from llmgr_core.store.writer_lock import WriterLock
from llmgr_core.store.writing import StoreWriter

COPIED = tuple(name for name in DATABASES if name != "meta")
ARRIVING = "arriving"


@dataclass(frozen=True)
class CopyHead:
    """What goes before the parts.

    Attributes:
        epoch, description: of the store.
        sequence: its newest change.
        pruned, live: see metadata.
    """

    epoch: str
    sequence: int
    pruned: int
    live: int
    description: Description


@dataclass(frozen=True)
class CopyPart:
    """Rows of one database, in the order of their keys."""

    database: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class CopyEnd:
    """What comes after the parts: how many rows of each database there were."""

    rows: Mapping[str, int] = field(default_factory=dict)


def copy_parts(store: EmbeddingStore, *, part_bytes: int = MOST_BYTES) -> Iterator[CopyHead | CopyPart | CopyEnd]:
    """One state of a store that may be in use, in parts of about ``part_bytes``; damaged records are left out.

    The transaction is open until the last part was taken: pages that the writer frees meanwhile are not used again.
    """
    counts = dict.fromkeys(COPIED, 0)
    with store.transaction() as transaction:
        meta = store.database("meta")
        yield CopyHead(
            store.epoch,
            store.newest_in(transaction),
            metadata.read_pruned(transaction, meta),
            metadata.read_live(transaction, meta),
            Description.of(store, transaction),
        )
        for database in COPIED:
            rows: list[Row] = []
            size = 0
            for key, value in transaction.cursor(db=store.database(database)):
                row = (bytes(key), bytes(value))
                try:
                    require_sound_rows(database, (row,))
                except DamagedRecordError as error:
                    store.note_damage(database, row[0].hex(), error)
                    continue
                rows.append(row)
                size += len(row[0]) + len(row[1])
                if size >= part_bytes:
                    counts[database] += len(rows)
                    yield CopyPart(database, tuple(rows))
                    rows, size = [], 0
            if rows:
                counts[database] += len(rows)
                yield CopyPart(database, tuple(rows))
    yield CopyEnd(counts)


class ArrivingCopy:
    """A whole copy on its way into a directory, beside what stands there.

    Args:
        path: directory of the replica.
        head: the copy's first part.

    Raises:
        StoreError: a store of its own stands there.
        StoreFullError: no space left on the disk.
    """

    def __init__(self, path: Path, head: CopyHead) -> None:
        require_replaceable(path)
        self._path, self._head = path, head
        self._counts = dict.fromkeys(COPIED, 0)
        discard_arriving(path)
        self._writer = StoreWriter.open(path / ARRIVING, replica=True)
        self._writer.transact(self._begin)

    def take(self, part: CopyPart) -> None:
        """Take the next part.

        Raises:
            DamagedRecordError: a record is not what was written.
            StoreFullError: no space left on the disk.
        """
        require_sound_rows(part.database, part.rows)
        handle = self._writer.database(part.database)

        def put(transaction: Any) -> None:
            for key, value in part.rows:
                transaction.put(key, value, db=handle)

        self._writer.transact(put)
        self._counts[part.database] += len(part.rows)

    def finish(self, end: CopyEnd) -> None:
        """Put the copy in the place of what stands there, in one step; readers change over by themselves.

        The replica that stands there must be closed.

        Raises:
            StoreDamagedError: rows are missing; what stands there stays.
            StoreLockedError: another process writes there.
        """
        found = {name: count for name, count in self._writer.counts().items() if name in COPIED}
        if dict(end.rows) != self._counts or found != self._counts:
            raise StoreDamagedError(f"the copy has {found} rows, the source {dict(end.rows)}", "it is fetched again")
        self._writer.close()
        lock = WriterLock(self._path)
        try:
            put_in_place(self._path / ARRIVING / DATA_NAME, self._path)
        finally:
            lock.release()
        discard_arriving(self._path)

    def discard(self) -> None:
        """Give the copy up; what stands there stays."""
        self._writer.close()
        discard_arriving(self._path)

    def _begin(self, transaction: Any) -> None:
        meta = self._writer.database("meta")
        metadata.write_replicated(transaction, meta, self._head.sequence, self._head.epoch)
        metadata.write_pruned(transaction, meta, self._head.pruned)
        metadata.write_live(transaction, meta, self._head.live)
        describe(self._writer, transaction, self._head.description)


def discard_arriving(path: Path) -> None:
    """Remove what a copy that was cut off has left."""
    shutil.rmtree(path / ARRIVING, ignore_errors=True)
