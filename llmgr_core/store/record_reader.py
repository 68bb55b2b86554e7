"""Reading single records of a store, and keeping account of those that are damaged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from llmgr_core.store.environment import Environment
from llmgr_core.store.records import (
    Buffer,
    Change,
    DamagedRecordError,
    ItemRecord,
    item_key,
    sequence_key,
    sequence_of,
    unpack_change,
    unpack_item_at,
    vector_payload,
)
from llmgr_core.store.states import Damage

log = logging.getLogger(__name__)
NAMED_DAMAGE = 100


class RecordReader:
    """Records by key, inside a transaction. A damaged one counts as absent, is counted, and is named in the log.

    Attributes:
        damage: records that were skipped because their checksum failed, the first NAMED_DAMAGE of them.
        damaged_count: how often such a record was met.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.path = environment.directory
        self.damage: list[Damage] = []
        self.damaged_count = 0

    def transaction(self) -> AbstractContextManager[Any]:
        """A read transaction of LMDB (one state of the store); values are memoryviews, valid inside the block only."""
        return self._environment.read()

    def database(self, name: str) -> Any:
        """LMDB's handle of "vectors", "items", "changes" or "meta"."""
        return self._environment.database(name)

    def newest_in(self, transaction: Any) -> int:
        """Sequence of the newest change that a transaction sees; 0 for a new store."""
        cursor = transaction.cursor(db=self.database("changes"))
        return sequence_of(cursor.key()) if cursor.last() else 0

    def changes_in(self, transaction: Any, since: int, limit: int) -> Iterator[Change]:
        """Sound changes after a sequence that a transaction sees, at most ``limit``."""
        cursor = transaction.cursor(db=self.database("changes"))
        if not cursor.set_range(sequence_key(since + 1)):
            return
        left = limit
        for key, value in cursor:
            if not left:
                return
            try:
                change = unpack_change(key, value)
            except DamagedRecordError as error:
                self.note_damage("changes", str(sequence_of(key)), error)
                continue
            left -= 1
            yield change

    def item_in(self, transaction: Any, item_id: str) -> ItemRecord | None:
        """An item's row that a transaction sees, tombstones included; None where there is no sound one."""
        return self._item(transaction, item_key(item_id))

    def sound_vector_row(self, transaction: Any, key: bytes) -> bytes | None:
        """The whole row of a vector, with its header; None where there is no sound one."""
        return None if self._payload(transaction, key) is None else bytes(transaction.get(key, db=self.database("vectors")))

    def _item(self, transaction: Any, key: bytes) -> ItemRecord | None:
        value = transaction.get(key, db=self.database("items"))
        return None if value is None else self._sound_item(key, value)

    def _sound_item(self, key: Buffer, value: Buffer) -> ItemRecord | None:
        try:
            return unpack_item_at(key, value)
        except DamagedRecordError as error:
            self.note_damage("items", bytes(key[1:]).decode("utf-8", errors="replace"), error)
            return None

    def _payload(self, transaction: Any, key: bytes) -> Buffer | None:
        value = transaction.get(key, db=self.database("vectors"))
        if value is None:
            return None
        try:
            return vector_payload(value)
        except DamagedRecordError as error:
            self.note_damage("vectors", key.hex(), error)
            return None

    def _vector(self, transaction: Any, key: bytes) -> np.ndarray | None:
        payload = self._payload(transaction, key)
        return None if payload is None else np.frombuffer(bytes(payload), dtype="<f2")

    def note_damage(self, database: str, name: str, error: Exception) -> None:
        """Count a damaged record, and name it in the log the first time."""
        self.damaged_count += 1
        if len(self.damage) < NAMED_DAMAGE:
            damage = Damage(database, name, str(error))
            if damage not in self.damage:
                self.damage.append(damage)
                log.warning("%s: skipped %s record %s: %s", self.path, database, name, error)
