"""Making a store anew from the records of one whose file is damaged beyond them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from llmgr_core.store import metadata
from llmgr_core.store.carving import Carved, carve
from llmgr_core.store.errors import StoreError
from llmgr_core.store.place import DATA_NAME, put_in_place
from llmgr_core.store.records import (
    ItemRecord,
    Operation,
    item_key,
    last_change,
    pack_change,
    pack_item,
    sequence_key,
    vector_payload,
)
from llmgr_core.store.repair import RepairReport
from llmgr_core.store.row_blocks import put_rows
from llmgr_core.store.writer_lock import WriterLock
from llmgr_core.store.writing import StoreWriter

NEW_NAME = "salvaging"
DAMAGED_NAME = "data.mdb.damaged"


def salvage_store(path: Path) -> RepairReport:
    """Put a store made of every record that passes its checksum in the place of a damaged file, which stays beside it.

    An item whose newest record is gone may be there in an older one: it is kept, and named for its owner to insert again,
    wherever the change log tells of it. What stood on damaged pages alone, log and item, cannot be told; so a backup or the
    catalogue's own list is to be compared afterwards.

    Raises:
        StoreError: nothing was found.
        StoreLockedError: another process writes to the store.
        StoreFullError: no space left for the new file; nothing was done.
    """
    lock = WriterLock(path)
    new = path / NEW_NAME
    try:
        carved = carve(path / DATA_NAME)
        if not carved.items and not carved.vectors:
            raise StoreError(f"{path / DATA_NAME} holds no record that can be read", "import an export, or embed again")
        shutil.rmtree(new, ignore_errors=True)
        report = _write(carved, new)
        kept = path / DAMAGED_NAME
        kept.unlink(missing_ok=True)
        os.link(path / DATA_NAME, kept)
        put_in_place(new / DATA_NAME, path)
        found = f"{len(carved.vectors)} vectors and {len(carved.items)} items"
        report.metadata.append(f"the store was made anew from {found}; the old file is {kept}")
        return report
    finally:
        shutil.rmtree(new, ignore_errors=True)
        lock.release()


def _write(carved: Carved, directory: Path) -> RepairReport:
    report = RepairReport(metadata=["the store has a new epoch: sequences of before mean nothing to it"])
    sound = {key: row for key, row in carved.vectors.items() if _fits(carved, key, row)}
    report.vectors = sorted(key.hex() for key in carved.vectors.keys() - sound.keys())
    items = [_as_logged(carved, item, report) for item in carved.items.values()]
    report.insert_again += sorted(carved.changes.keys() - carved.items.keys())
    rows = _placed([_with_vectors(item, sound, report) for item in items], carved)
    with StoreWriter.open(directory) as store:
        put_rows(store, "vectors", sorted(sound.items()))
        put_rows(store, "items", sorted((item_key(item.item_id), pack_item(item)) for item in rows))
        put_rows(store, "changes", [(sequence_key(item.sequence), pack_change(last_change(item))) for item in rows])

        def describe(transaction: Any) -> None:
            meta = store.database("meta")
            for encoder in carved.encoders.values():
                metadata.write_encoder(transaction, meta, encoder)
            known = [one for one in carved.active if one in {encoder.fingerprint for encoder in carved.encoders.values()}]
            if len(known) == 1:
                metadata.write_active(transaction, meta, known[0])
            else:
                report.metadata.append("which encoder was the active one is not known: `llmgr store activate`")
            metadata.write_pruned(transaction, meta, rows[-1].sequence if rows else 0)
            metadata.write_live(transaction, meta, sum(not item.deleted for item in rows))

        store.transact(describe)
    return report


def _fits(carved: Carved, key: bytes, row: bytes) -> bool:
    encoder = carved.encoders.get(key[:16])
    return encoder is not None and len(vector_payload(row)) == 2 * encoder.dimensions


def _as_logged(carved: Carved, item: ItemRecord, report: RepairReport) -> ItemRecord:
    """The item in the state that its last change tells of, as far as it is known."""
    change = carved.changes.get(item.item_id)
    if change is None or change.sequence <= item.sequence:
        return item
    deleted = change.operation is Operation.DELETE
    if not deleted:
        report.insert_again.append(item.item_id)
    return item._replace(sequence=change.sequence, deleted=deleted)


def _with_vectors(item: ItemRecord, vectors: dict[bytes, bytes], report: RepairReport) -> ItemRecord:
    kept = {encoder: text for encoder, text in item.texts.items() if encoder + text in vectors}
    if len(kept) < len(item.texts) and not item.deleted:
        report.embed_again.append(item.item_id)
    return item._replace(texts=kept)


def _placed(items: list[ItemRecord], carved: Carved) -> list[ItemRecord]:
    """The items in the order of their changes; two that claim the same place (one was never acknowledged) get one each."""
    items.sort(key=lambda item: (item.sequence, item.updated_ns))
    newest = max((*(item.sequence for item in items), *(change.sequence for change in carved.changes.values())), default=0)
    placed: list[ItemRecord] = []
    moved: list[ItemRecord] = []
    for item, following in zip(items, [*items[1:], None], strict=True):
        (moved if following is not None and following.sequence == item.sequence else placed).append(item)
    return placed + [item._replace(sequence=newest + number) for number, item in enumerate(moved, 1)]
