"""Writing an embedding store: one process at a time, groups of changes in one durable transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from llmgr_core.store import environment as environments
from llmgr_core.store import metadata
from llmgr_core.store.errors import StoreError, VectorError
from llmgr_core.store.metadata import Encoder
from llmgr_core.store.operations import Delete, EmbeddedText, Put, Written
from llmgr_core.store.reading import EmbeddingStore
from llmgr_core.store.records import (
    NO_FINGERPRINT,
    Change,
    ItemRecord,
    Operation,
    fingerprint_key,
    item_key,
    pack_change,
    pack_item,
    pack_vector,
    sequence_key,
)
from llmgr_core.store.writer_lock import WriterLock

Result = TypeVar("Result")


class StoreWriter(EmbeddingStore):
    """A store opened for writing, by this process alone. One thread may write at a time; any number may read."""

    def __init__(self, environment: environments.Environment, lock: WriterLock) -> None:
        super().__init__(environment)
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        check_structure: bool = True,
        map_bytes: int = environments.FIRST_MAP_BYTES,
        replica: bool = False,
    ) -> StoreWriter:
        """Open a store for writing, make it where there is none.

        Args:
            path: its directory.
            check_structure: see environment.acquire.
            map_bytes: size of the map at first; it doubles whenever it is full.
            replica: whether it may be a replica, which only what brings its source's changes may write.

        Raises:
            StoreDamagedError: the pages of the file do not hang together.
            StoreError: no LMDB file, another schema, a replica.
            StoreLockedError: another process writes to it.
        """
        path.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(path)
        try:
            environment = environments.acquire(path, writable=True, map_bytes=map_bytes, check_structure=check_structure)
            try:
                environment.clear_dead_readers()
                metadata.initialise(environment)
                if not replica:
                    _require_own(environment)
                return cls(environment, lock)
            except BaseException:
                environments.release(environment)
                raise
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Close it and let the next writer in."""
        super().close()
        self._lock.release()

    def announce(self, address: str) -> None:
        """Tell others, through the lock file, that an embedding server at ``address`` (host:port) writes for them."""
        self._lock.announce(address)

    def activate(self, encoder: Encoder) -> None:
        """Make an encoder the one that is served.

        Raises:
            StoreError: its vectors have another number of dimensions here.
        """
        self.transact(lambda transaction: self._activate(transaction, encoder))

    def register(self, encoder: Encoder) -> None:
        """Note an encoder before vectors of it are put.

        Raises:
            StoreError: its vectors have another number of dimensions here.
        """
        self.transact(lambda transaction: metadata.write_encoder(transaction, self.database("meta"), encoder))

    def write(self, operations: Sequence[Put | Delete]) -> list[Written]:
        """Do all of it in one transaction, on the disk when this returns; where it raises, none of it was done.

        An item that is already as asked is left as it is and keeps its sequence.

        Raises:
            StoreFullError: no space left on the disk.
            VectorError: a vector of another dimension than its encoder's; nothing was written.
        """
        return self.transact(lambda transaction: self._write(transaction, operations))

    def put_vectors(self, texts: Sequence[EmbeddedText]) -> None:
        """Keep vectors of texts that no item may have yet, all in one durable transaction; one that is there stays.

        Readers and the change log see nothing of them until an item has the text. `llmgr store prune` drops those left over.

        Raises:
            StoreFullError, VectorError: as of ``write``.
        """
        self.transact(lambda transaction: self._put_vectors(transaction, texts))

    def put(self, item_id: str, record: bytes, *texts: EmbeddedText) -> Written:
        """Insert or replace one item, durably; see ``write``."""
        return self.write([Put(item_id, record, texts)])[0]

    def delete(self, item_id: str) -> Written:
        """Make one item a tombstone, durably; see ``write``."""
        return self.write([Delete(item_id)])[0]

    def transact(self, action: Callable[[Any], Result]) -> Result:
        """Do something in one durable write transaction of LMDB: all of it or, where it raises, nothing.

        Args:
            action: gets the transaction; done again from the start where the map had to grow.

        Raises:
            StoreFullError: no space left on the disk.
        """
        while True:
            try:
                with self._environment.write() as transaction:
                    return action(transaction)
            except environments.MapGrownError:
                continue

    def _activate(self, transaction: Any, encoder: Encoder) -> None:
        meta = self.database("meta")
        metadata.write_encoder(transaction, meta, encoder)
        metadata.write_active(transaction, meta, encoder.fingerprint)

    def _write(self, transaction: Any, operations: Sequence[Put | Delete]) -> list[Written]:
        newest = self.newest_in(transaction)
        encoders = metadata.read_encoders(transaction, self.database("meta"))
        live = metadata.read_live(transaction, self.database("meta"))
        written = []
        for operation in operations:
            if isinstance(operation, Put):
                result = self._put(transaction, operation, newest + 1, encoders)
            else:
                result = self._delete(transaction, operation, newest + 1)
            newest += result.changed
            live += (not result.existed) if isinstance(operation, Put) else -int(result.existed)
            written.append(result)
        if any(result.changed for result in written):
            metadata.write_live(transaction, self.database("meta"), live)
        return written

    def _put(self, transaction: Any, put: Put, sequence: int, encoders: dict[bytes, Encoder]) -> Written:
        key = item_key(put.item_id)
        old = self._item(transaction, key)
        live = self._stands(transaction, key) if old is None else not old.deleted
        texts = {fingerprint_key(text.fingerprint): text for text in put.texts}
        rewritten = [self._put_vector(transaction, text, encoders) for text in texts.values()]
        hashes = {encoder: text.text_hash for encoder, text in texts.items()}
        if old is not None and live and old.record == put.record:
            # Vectors of encoders that were not asked now still belong to this very record.
            hashes = {**old.texts, **hashes}
            # A vector that was damaged and is whole again is a change too: readers that loaded without it must hear of it.
            if hashes == old.texts and not any(rewritten):
                return Written(put.item_id, old.sequence, changed=False, existed=True)
        item = ItemRecord(put.item_id, put.record, hashes, sequence, updated_ns=time.time_ns())
        change = Change(sequence, put.item_id, Operation.UPSERT, next(iter(texts), NO_FINGERPRINT))
        self._append(transaction, key, item, change)
        return Written(put.item_id, sequence, changed=True, existed=live)

    def _put_vectors(self, transaction: Any, texts: Sequence[EmbeddedText]) -> None:
        encoders = metadata.read_encoders(transaction, self.database("meta"))
        for text in texts:
            self._put_vector(transaction, text, encoders)

    def _put_vector(self, transaction: Any, text: EmbeddedText, encoders: dict[bytes, Encoder]) -> bool:
        """Whether there was no sound one."""
        encoder = fingerprint_key(text.fingerprint)
        self._check_dimensions(transaction, encoders, encoder, text)
        row = encoder + text.text_hash
        if self._payload(transaction, row) is not None:
            return False
        transaction.put(row, pack_vector(text.vector), db=self.database("vectors"))
        return True

    def _delete(self, transaction: Any, delete: Delete, sequence: int) -> Written:
        key = item_key(delete.item_id)
        old = self._item(transaction, key)
        if old is not None and old.deleted:
            return Written(delete.item_id, old.sequence, changed=False, existed=False)
        existed = self._stands(transaction, key)
        base = ItemRecord(delete.item_id, b"", {}) if old is None else old
        item = base._replace(sequence=sequence, deleted=True, updated_ns=time.time_ns())
        self._append(transaction, key, item, Change(sequence, delete.item_id, Operation.DELETE))
        return Written(delete.item_id, sequence, changed=True, existed=existed)

    def _stands(self, transaction: Any, key: bytes) -> bool:
        """Whether there is a row of an item, be it damaged: it was counted when it was written."""
        return transaction.get(key, db=self.database("items")) is not None

    def _append(self, transaction: Any, key: bytes, item: ItemRecord, change: Change) -> None:
        transaction.put(key, pack_item(item), db=self.database("items"))
        # append=True: sequences only grow, and a sequence that is taken already would be a fault worth stopping for.
        if not transaction.put(sequence_key(change.sequence), pack_change(change), db=self.database("changes"), append=True):
            raise AssertionError(f"change {change.sequence} is there already")

    def _check_dimensions(self, transaction: Any, encoders: dict[bytes, Encoder], key: bytes, text: EmbeddedText) -> None:
        known = encoders.get(key)
        if known is None:
            known = Encoder(text.fingerprint, int(text.vector.size))
            metadata.write_encoder(transaction, self.database("meta"), known)
            encoders[key] = known
        if known.dimensions != text.vector.size:
            raise VectorError(
                f"a vector of {text.vector.size} numbers for encoder {text.fingerprint[:12]}, whose vectors have "
                f"{known.dimensions}"
            )


def _require_own(environment: environments.Environment) -> None:
    with environment.read() as transaction:
        if metadata.read_replicated(transaction, environment.database("meta")) is not None:
            raise StoreError(
                f"{environment.directory} is a replica of another host's store, and only `llmgr serve replica` writes to it",
                "write to the embedding host's store; `llmgr store promote` makes this one a store of its own",
            )
