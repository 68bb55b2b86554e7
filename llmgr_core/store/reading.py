"""Reading an embedding store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from llmgr_core.store import environment as environments
from llmgr_core.store import metadata
from llmgr_core.store.errors import StoreError
from llmgr_core.store.metadata import Encoder
from llmgr_core.store.record_reader import RecordReader
from llmgr_core.store.records import (
    Buffer,
    Change,
    DamagedRecordError,
    ItemRecord,
    fingerprint_key,
    item_key,
    sequence_key,
    sequence_of,
    unpack_change,
)
from llmgr_core.store.states import Snapshot, Update, Updates, vector_matrix

BLOCK = 4096


class EmbeddingStore(RecordReader):
    """A store opened for reading; open it with ``EmbeddingStore.open``. Safe to use from several threads.

    Attributes:
        path: its directory.
        epoch: its identity, random, made with it; sequences of two epochs cannot be compared.
        damage, damaged_count: records that were skipped because their checksum failed.
    """

    def __init__(self, environment: environments.Environment) -> None:
        super().__init__(environment)
        self.epoch = metadata.read_epoch(environment)
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, check_structure: bool = True) -> EmbeddingStore:
        """Open a store for reading; StoreWriter.open opens one for writing.

        Args:
            path: its directory.
            check_structure: see environment.acquire.

        Raises:
            StoreDamagedError: the pages of the file do not hang together.
            StoreError: no store there, no LMDB file, another schema.
        """
        environment = environments.acquire(path, writable=False, check_structure=check_structure)
        try:
            return EmbeddingStore(environment)
        except BaseException:
            environments.release(environment)
            raise

    def close(self) -> None:
        """Close it; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            environments.release(self._environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def transaction_id(self) -> int:
        """Number of the last committed transaction; it grows with every write, and costs about a microsecond to ask."""
        with self._environment.read() as transaction:
            return int(transaction.id())

    def sequence(self) -> int:
        """Sequence of the newest change; 0 for a new store."""
        with self._environment.read() as transaction:
            return self.newest_in(transaction)

    def active_fingerprint(self) -> str | None:
        """The encoder that the embedding server writes for, or None before the first one."""
        with self._environment.read() as transaction:
            return metadata.read_active(transaction, self.database("meta"))

    def encoders(self) -> list[Encoder]:
        """Encoders that vectors stand under."""
        with self._environment.read() as transaction:
            return list(metadata.read_encoders(transaction, self.database("meta")).values())

    def dimensions(self, fingerprint: str) -> int:
        """D of an encoder's vectors.

        Raises:
            StoreError: the store holds no vectors of this encoder; the message names those it holds.
        """
        known = self.encoders()
        for encoder in known:
            if encoder.fingerprint == fingerprint:
                return encoder.dimensions
        names = ", ".join(f"{one.fingerprint[:12]} ({one.description or 'no description'})" for one in known) or "none"
        raise StoreError(
            f"{self.path} holds no vectors of encoder {fingerprint[:12]}; encoders in it: {names}",
            "run `llmgr embed` with the engine of this bundle, or point at the store that belongs to it",
        )

    def readers(self) -> list[tuple[int, int | None]]:
        """Processes that have the store open, each with the transaction it reads, or None where it reads none now."""
        return self._environment.readers()

    def clear_dead_readers(self) -> int:
        """Free the places of readers that died, which keep old pages from being used again; how many there were."""
        return self._environment.clear_dead_readers()

    def counts(self) -> dict[str, int]:
        """Rows of databases vectors, items (tombstones too) and changes, and the number of live items."""
        with self._environment.read() as transaction:
            rows = {name: int(transaction.stat(self.database(name))["entries"]) for name in ("vectors", "items", "changes")}
            return {**rows, "live": metadata.read_live(transaction, self.database("meta"))}

    def get_item(self, item_id: str) -> ItemRecord | None:
        """An item's row, tombstones included; None where there never was one, or where it is damaged."""
        with self._environment.read() as transaction:
            return self._item(transaction, item_key(item_id))

    def is_damaged(self, item_id: str) -> bool:
        """Whether there is a row of this item that cannot be read; get_item gives None for it."""
        with self._environment.read() as transaction:
            key = item_key(item_id)
            return transaction.get(key, db=self.database("items")) is not None and self._item(transaction, key) is None

    def find_vector(self, fingerprint: str, text_hash: bytes) -> np.ndarray | None:
        """float16 [D] that an encoder made of a cleaned text, or None."""
        with self._environment.read() as transaction:
            return self._vector(transaction, fingerprint_key(fingerprint) + text_hash)

    def known_texts(self, fingerprint: str, text_hashes: Sequence[bytes]) -> list[bool]:
        """Which texts have a sound vector of this encoder."""
        prefix = fingerprint_key(fingerprint)
        known = []
        for start in range(0, len(text_hashes), BLOCK):
            with self._environment.read() as transaction:
                known += [
                    self._payload(transaction, prefix + text_hash) is not None
                    for text_hash in text_hashes[start : start + BLOCK]
                ]
        return known

    def read_vectors(self, item_ids: Sequence[str], fingerprint: str) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of many items, from one state of the store.

        Returns:
            float16 [n, D], zeros where there is none, and bool [n], False for an item that is unknown, deleted, or has no
            sound vector of this encoder.

        Raises:
            StoreError: the store holds no vectors of this encoder.
        """
        dimensions = self.dimensions(fingerprint)
        encoder = fingerprint_key(fingerprint)
        with self._environment.read() as transaction:
            rows = []
            for item_id in item_ids:
                item = self._item(transaction, item_key(item_id))
                text = None if item is None or item.deleted else item.texts.get(encoder)
                rows.append(None if text is None else self._payload(transaction, encoder + text))
            return vector_matrix(rows, dimensions)

    def snapshot(self, fingerprint: str, first: Sequence[str] = ()) -> Snapshot:
        """Every item, tombstones included, and its vector, from one state of the store.

        Args:
            fingerprint: encoder of the vectors.
            first: distinct ids whose rows come first, in this order, those that the store does not know too.

        Raises:
            StoreError: the store holds no vectors of this encoder.
        """
        dimensions = self.dimensions(fingerprint)
        encoder = fingerprint_key(fingerprint)
        ids = list(first)
        place_of = {item_id: place for place, item_id in enumerate(ids)}
        deleted = [False] * len(ids)
        sequences = [0] * len(ids)
        rows: list[Buffer | None] = [None] * len(ids)
        with self._environment.read() as transaction:
            for key, value in transaction.cursor(db=self.database("items")):
                item = self._sound_item(key, value)
                if item is None:
                    continue
                text = item.texts.get(encoder)
                row = None if text is None else self._payload(transaction, encoder + text)
                place = place_of.get(item.item_id)
                if place is None:
                    ids.append(item.item_id)
                    deleted.append(item.deleted)
                    sequences.append(item.sequence)
                    rows.append(row)
                else:
                    deleted[place], sequences[place], rows[place] = item.deleted, item.sequence, row
            vectors, present = vector_matrix(rows, dimensions)
            newest, number = self.newest_in(transaction), int(transaction.id())
        return Snapshot(
            ids,
            vectors,
            present,
            np.array(sequences, dtype=np.uint64),
            np.array(deleted, dtype=np.bool_),
            newest,
            number,
        )

    def missing_vectors(self, fingerprint: str, *, lost: bool = False) -> list[str]:
        """Ids of live items without a sound vector of an encoder, from one state of the store.

        Args:
            lost: only those that had one once, or have no vector of any encoder.
        """
        encoder = fingerprint_key(fingerprint)
        missing = []
        with self._environment.read() as transaction:
            for key, value in transaction.cursor(db=self.database("items")):
                item = self._sound_item(key, value)
                if item is None or item.deleted:
                    continue
                text = item.texts.get(encoder)
                if text is None and lost and item.texts:
                    continue
                if text is None or self._payload(transaction, encoder + text) is None:
                    missing.append(item.item_id)
        return missing

    def items(self) -> Iterator[ItemRecord]:
        """Every live item in the order of the keys; read in blocks, so that items written meanwhile may be among them."""
        after: bytes | None = None
        while True:
            block = []
            with self._environment.read() as transaction:
                cursor = transaction.cursor(db=self.database("items"))
                found = cursor.first() if after is None else cursor.set_range(after + b"\x00")
                for key, value in cursor if found else ():
                    after = bytes(key)
                    item = self._sound_item(key, value)
                    if item is not None and not item.deleted:
                        block.append(item)
                    if len(block) == BLOCK:
                        break
                else:
                    found = False
            yield from block
            if not found:
                return

    def changes(self, since: int = 0) -> Iterator[Change]:
        """The change log after a sequence, up to the newest change; an item that changed twice is in it twice."""
        while True:
            block = self.changes_block(since, BLOCK)
            yield from block
            if not block:
                return
            since = block[-1].sequence

    def changes_block(self, since: int, limit: int) -> list[Change]:
        """Up to ``limit`` changes after a sequence, from one state of the store."""
        with self._environment.read() as transaction:
            return list(self.changes_in(transaction, since, limit))

    def updates(self, since: int, fingerprint: str, limit: int = BLOCK) -> Updates:
        """What a ranker has to apply to a table that holds everything up to ``since``.

        Args:
            since: sequence of the table.
            fingerprint: encoder whose vectors the table is made from.
            limit: changes to look at; ask again while ``behind`` is set.
        """
        encoder = fingerprint_key(fingerprint)
        updates: dict[str, Update] = {}
        with self._environment.read() as transaction:
            newest, reached, looked_at = self.newest_in(transaction), since, 0
            cursor = transaction.cursor(db=self.database("changes"))
            if cursor.set_range(sequence_key(since + 1)):
                for key, value in cursor:
                    if looked_at == limit:
                        break
                    looked_at += 1
                    reached = sequence_of(key)
                    try:
                        item_id = unpack_change(key, value).item_id
                    except DamagedRecordError as error:
                        self.note_damage("changes", str(reached), error)
                        continue
                    if item_id in updates:
                        continue
                    item = self._item(transaction, item_key(item_id))
                    if item is None:
                        continue
                    text = item.texts.get(encoder)
                    vector = None if text is None else self._vector(transaction, encoder + text)
                    updates[item_id] = Update(item_id, item.sequence, item.deleted, vector)
        return Updates(list(updates.values()), reached, reached < newest)
