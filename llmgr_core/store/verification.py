"""Checking every record of a store, and how they fit together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmgr_core.store.environment import DATA_NAME
from llmgr_core.store.reading import EmbeddingStore
from llmgr_core.store.records import (
    Change,
    DamagedRecordError,
    ItemRecord,
    Operation,
    item_key,
    sequence_of,
    unpack_change,
    unpack_item,
    vector_payload,
)

SHOWN_PROBLEMS = 1000


@dataclass
class VerificationReport:
    """What was found.

    Attributes:
        vectors, items, changes: sound records of each kind.
        problems: one line for each thing that is wrong, the first SHOWN_PROBLEMS of them.
    """

    vectors: int = 0
    items: int = 0
    changes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.problems

    def note(self, problem: str) -> None:
        """Add a problem, unless there are enough."""
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append(problem)


def verify_store(path: Path) -> VerificationReport:
    """Check a store that may be in use; what is checked is its state at the start.

    Every checksum; that the change log has no gap; that each item stands as its last change says; that each live item's vectors
    are there. Where the lmdb package can, the structure of the file too.

    Raises:
        StoreError: it cannot even be opened.
    """
    report = VerificationReport()
    _check_structure(path, report)
    with EmbeddingStore.open(path) as store:
        newest = {}
        with store.transaction() as transaction:
            vectors = _check_vectors(store, transaction, report)
            newest = _check_changes(store, transaction, report)
            _check_items(store, transaction, report, vectors, newest)
    return report


def _check_structure(path: Path, report: VerificationReport) -> None:
    try:
        from lmdb import verify
    except ImportError:  # lmdb before 3.0
        return
    for problem in verify.verify(str(path / DATA_NAME)):  # type: ignore[no-untyped-call]
        report.note(f"structure: {problem}")


def _check_vectors(store: EmbeddingStore, transaction: Any, report: VerificationReport) -> set[bytes]:
    sound = set()
    for key, value in transaction.cursor(db=store.database("vectors")):
        try:
            vector_payload(value)
            sound.add(bytes(key))
        except DamagedRecordError as error:
            report.note(f"vector {bytes(key).hex()}: {error}")
    report.vectors = len(sound)
    return sound


def _check_changes(store: EmbeddingStore, transaction: Any, report: VerificationReport) -> dict[str, Change]:
    newest: dict[str, Change] = {}
    expected = 1
    for key, value in transaction.cursor(db=store.database("changes")):
        sequence = sequence_of(key)
        if sequence != expected:
            report.note(f"changes: {expected} to {sequence - 1} are missing")
        expected = sequence + 1
        try:
            change = unpack_change(key, value)
        except (DamagedRecordError, ValueError) as error:
            report.note(f"change {sequence}: {error}")
            continue
        newest[change.item_id] = change
        report.changes += 1
    return newest


def _check_items(
    store: EmbeddingStore, transaction: Any, report: VerificationReport, vectors: set[bytes], newest: dict[str, Change]
) -> None:
    seen = set()
    for key, value in transaction.cursor(db=store.database("items")):
        try:
            item = unpack_item(value)
            if item_key(item.item_id) != key:
                raise DamagedRecordError("stands under another item's key")
        except (DamagedRecordError, ValueError) as error:
            report.note(f"item {bytes(key[1:]).decode(errors='replace')!r}: {error}")
            continue
        report.items += 1
        seen.add(item.item_id)
        _check_item(item, report, vectors, newest.get(item.item_id))
    for item_id in newest.keys() - seen:
        report.note(f"item {item_id!r}: in the change log, but not in the items")


def _check_item(item: ItemRecord, report: VerificationReport, vectors: set[bytes], change: Change | None) -> None:
    if change is None or change.sequence != item.sequence:
        logged = "none" if change is None else str(change.sequence)
        report.note(f"item {item.item_id!r}: its last change is {item.sequence}, in the log it is {logged}")
    elif (change.operation is Operation.DELETE) != item.deleted:
        report.note(f"item {item.item_id!r}: deleted is {item.deleted}, the log says {change.operation.name}")
    if not item.deleted:
        for fingerprint, text in item.texts.items():
            if fingerprint + text not in vectors:
                report.note(f"item {item.item_id!r}: no sound vector under encoder key {fingerprint.hex()[:12]}")
