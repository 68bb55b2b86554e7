"""Blocks of the change log with all that a copy of the store on another host needs to follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmgr_core.store import metadata
from llmgr_core.store.metadata import Encoder
from llmgr_core.store.reading import EmbeddingStore
from llmgr_core.store.records import (
    Change,
    DamagedRecordError,
    ItemRecord,
    Operation,
    item_key,
    pack_item,
    sequence_key,
    sequence_of,
    unpack_change,
    unpack_item_at,
    vector_payload,
)

MOST_CHANGES = 1024
MOST_BYTES = 1 << 20
UNKNOWN_SUM = 0
_SUM = slice(4, 8)

Row = tuple[bytes, bytes]


@dataclass(frozen=True)
class Description:
    """What a store says about itself beside its rows.

    Attributes:
        encoders: that vectors stand under.
        active: fingerprint of the active one, or None.
    """

    encoders: tuple[Encoder, ...] = ()
    active: str | None = None

    @classmethod
    def of(cls, store: EmbeddingStore, transaction: Any) -> Description:
        """Of a store as a transaction sees it."""
        meta = store.database("meta")
        encoders = metadata.read_encoders(transaction, meta).values()
        ordered = tuple(sorted(encoders, key=lambda encoder: encoder.fingerprint))
        return cls(ordered, metadata.read_active(transaction, meta))


@dataclass(frozen=True)
class ChangeBlock:
    """The changes after one sequence up to another, with the rows they lead to, as they stand in LMDB.

    Applying a block twice, or one that overlaps what was applied, changes nothing. An item whose last change lies beyond the
    block is in it with its newest text under the sequence and the operation of its last change in the block, so that every
    prefix of the blocks is a store that hangs together.

    Attributes:
        epoch: of the store it was read from.
        after: the block goes on from here; 0 is the beginning.
        after_sum: checksum of the change at ``after``; UNKNOWN_SUM where that one was pruned or is damaged.
        sequence: it ends here.
        sequence_sum: checksum of the change at ``sequence``, as above.
        description: of the store.
        rows: key and value by database ("vectors", "items", "changes").
    """

    epoch: str
    after: int
    after_sum: int
    sequence: int
    sequence_sum: int
    description: Description
    rows: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)

    @property
    def changes(self) -> int:
        return len(self.rows.get("changes", ()))

    def require_sound(self) -> None:
        """Look at the checksum of every record.

        Raises:
            DamagedRecordError: one is not what was written.
        """
        for database, rows in self.rows.items():
            require_sound_rows(database, rows)


def require_sound_rows(database: str, rows: tuple[Row, ...]) -> None:
    """Look at the checksum of every record of one database.

    Raises:
        DamagedRecordError: one is not what was written.
    """
    for key, value in rows:
        if database == "vectors":
            vector_payload(value)
        elif database == "changes":
            unpack_change(key, value)
        else:
            unpack_item_at(key, value)


def change_sum(store: EmbeddingStore, transaction: Any, sequence: int) -> int:
    """Checksum of the change at a sequence; UNKNOWN_SUM where there is no sound one."""
    key = sequence_key(sequence)
    value = transaction.get(key, db=store.database("changes"))
    if value is None:
        return UNKNOWN_SUM
    try:
        unpack_change(key, value)
    except DamagedRecordError:
        return UNKNOWN_SUM
    return int.from_bytes(bytes(value[_SUM]), "little")


def read_block(
    store: EmbeddingStore, since: int, *, most_changes: int = MOST_CHANGES, most_bytes: int = MOST_BYTES
) -> ChangeBlock:
    """The next block after a sequence, from one state of the store; one without rows where nothing has changed.

    Records that are damaged are left out; the store counts them.

    Args:
        since: where the last block ended.
        most_changes, most_bytes: the block ends where it reaches one of them, but holds one change at least.
    """
    with store.transaction() as transaction:
        return _Reading(store, transaction, since).read(most_changes, most_bytes)


class _Reading:
    """One block in the making."""

    def __init__(self, store: EmbeddingStore, transaction: Any, since: int) -> None:
        self._store, self._transaction, self._since = store, transaction, since
        self._items: dict[str, ItemRecord | None] = {}
        self._last: dict[str, Change] = {}
        self._vectors: dict[bytes, bytes] = {}
        self._bytes = 0

    def read(self, most_changes: int, most_bytes: int) -> ChangeBlock:
        changes: list[Row] = []
        reached = self._since
        cursor = self._transaction.cursor(db=self._store.database("changes"))
        for key, value in cursor if cursor.set_range(sequence_key(self._since + 1)) else ():
            if len(changes) >= most_changes or self._bytes >= most_bytes:
                break
            reached = sequence_of(key)
            try:
                change = unpack_change(key, value)
            except DamagedRecordError as error:
                self._store.note_damage("changes", str(reached), error)
                continue
            changes.append((bytes(key), bytes(value)))
            self._last[change.item_id] = change
            self._take(change.item_id)
        items = [self._item_row(item_id, item, reached) for item_id, item in self._items.items() if item is not None]
        return ChangeBlock(
            self._store.epoch,
            self._since,
            change_sum(self._store, self._transaction, self._since),
            reached,
            change_sum(self._store, self._transaction, reached),
            Description.of(self._store, self._transaction),
            {"vectors": tuple(self._vectors.items()), "items": tuple(items), "changes": tuple(changes)},
        )

    def _take(self, item_id: str) -> None:
        if item_id in self._items:
            return
        item = self._items[item_id] = self._store.item_in(self._transaction, item_id)
        if item is None:
            return
        self._bytes += len(item.record) + len(item_id)
        for encoder, text in item.texts.items():
            key = encoder + text
            row = self._store.sound_vector_row(self._transaction, key)
            if key not in self._vectors and row is not None:
                self._vectors[key] = row
                self._bytes += len(row)

    def _item_row(self, item_id: str, item: ItemRecord, reached: int) -> Row:
        if item.sequence > reached:
            last = self._last[item_id]
            item = item._replace(sequence=last.sequence, deleted=last.operation is Operation.DELETE)
        return item_key(item_id), pack_item(item)
