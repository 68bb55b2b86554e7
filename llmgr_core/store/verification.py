"""Checking every record of a store, and how they fit together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmgr_core.store import metadata
from llmgr_core.store.errors import StoreError
from llmgr_core.store.place import DATA_NAME
from llmgr_core.store.reading import EmbeddingStore
from llmgr_core.store.records import (
    Change,
    DamagedRecordError,
    ItemRecord,
    Operation,
    sequence_of,
    unpack_change,
    unpack_item_at,
    vector_payload,
)
from llmgr_core.store.structure import structure_problems

SHOWN_PROBLEMS = 1000


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: "vector", "item", "change" or "store" where a record is not what was written; "missing vector", "log" or "count"
            where records do not fit together; "meta page", "leaf page" and so on where the file itself is damaged.
        name: of the record: encoder key and text hash, item id, sequence; page number.
        reason: what is wrong with it.
    """

    kind: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.reason}" if self.name else f"{self.kind}: {self.reason}"


@dataclass
class VerificationReport:
    """What was found.

    Attributes:
        vectors, items, changes: sound records of each kind.
        found: how many findings there are of each kind.
        findings: the first SHOWN_PROBLEMS of them.
    """

    vectors: int = 0
    items: int = 0
    changes: int = 0
    found: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.found

    @property
    def problems(self) -> list[str]:
        """The findings as lines for people."""
        return [str(finding) for finding in self.findings]

    def note(self, kind: str, name: str, reason: object) -> None:
        """Add a finding; beyond SHOWN_PROBLEMS it is only counted."""
        self.found[kind] += 1
        if len(self.findings) < SHOWN_PROBLEMS:
            self.findings.append(Finding(kind, name, str(reason)))


def verify_store(path: Path) -> VerificationReport:
    """Check a store that may be in use; what is checked is its state at the start.

    Every checksum; that the change log has no gap but where it was pruned; that each item stands as its last change says; that
    each item's vectors are there. Where the lmdb package can, the structure of the file too; if that is damaged, nothing
    else is looked at, since LMDB may crash on it.

    Raises:
        StoreError: there is no store.
    """
    report = VerificationReport()
    data = path / DATA_NAME
    if not data.is_file():
        raise StoreError(f"no embedding store at {path}", "give the directory that holds data.mdb")
    try:
        with EmbeddingStore.open(path, check_structure=False) as store, store.transaction() as transaction:
            # Inside the transaction: no page of this state is used again by a writer meanwhile.
            if _structure_is_sound(data, report):
                _check_records(store, transaction, report)
    except StoreError as error:
        if _structure_is_sound(data, report):
            report.note("store", "", error.args[0])
    return report


def _structure_is_sound(data: Path, report: VerificationReport) -> bool:
    problems = structure_problems(data)
    for problem in problems:
        report.note(f"{problem.page_class} page", "" if problem.page is None else str(problem.page), problem.text)
    return not problems


def _check_records(store: EmbeddingStore, transaction: Any, report: VerificationReport) -> None:
    vectors = _check_vectors(store, transaction, report)
    newest = _check_changes(store, transaction, report)
    live = _check_items(store, transaction, report, vectors, newest)
    counted = metadata.read_live(transaction, store.database("meta"))
    if live != counted and not report.found["item"]:
        report.note("count", "", f"{live} items are live, the store says {counted}")


def _check_vectors(store: EmbeddingStore, transaction: Any, report: VerificationReport) -> set[bytes]:
    sound = set()
    encoders = metadata.read_encoders(transaction, store.database("meta"))
    for key, value in transaction.cursor(db=store.database("vectors")):
        name = bytes(key).hex()
        try:
            payload = vector_payload(value)
        except DamagedRecordError as error:
            report.note("vector", name, error)
            continue
        encoder = encoders.get(bytes(key[:16]))
        if encoder is None:
            report.note("vector", name, "of an encoder that the store does not know")
        elif len(payload) != 2 * encoder.dimensions:
            report.note("vector", name, f"{len(payload) // 2} numbers; its encoder's have {encoder.dimensions}")
        else:
            sound.add(bytes(key))
    report.vectors = len(sound)
    return sound


def _check_changes(store: EmbeddingStore, transaction: Any, report: VerificationReport) -> dict[str, Change]:
    newest: dict[str, Change] = {}
    pruned = metadata.read_pruned(transaction, store.database("meta"))
    expected = 1
    for key, value in transaction.cursor(db=store.database("changes")):
        sequence = sequence_of(key)
        if sequence != expected and sequence > pruned + 1:
            report.note("log", f"{max(expected, pruned + 1)} to {sequence - 1}", "these changes are missing")
        expected = sequence + 1
        try:
            change = unpack_change(key, value)
        except DamagedRecordError as error:
            report.note("change", str(sequence), error)
            continue
        newest[change.item_id] = change
        report.changes += 1
    return newest


def _check_items(
    store: EmbeddingStore, transaction: Any, report: VerificationReport, vectors: set[bytes], newest: dict[str, Change]
) -> int:
    seen, live = set(), 0
    for key, value in transaction.cursor(db=store.database("items")):
        try:
            item = unpack_item_at(key, value)
        except DamagedRecordError as error:
            report.note("item", repr(bytes(key[1:]).decode(errors="replace")), error)
            continue
        report.items += 1
        live += not item.deleted
        seen.add(item.item_id)
        _check_item(item, report, vectors, newest.get(item.item_id))
    for item_id in newest.keys() - seen:
        report.note("log", f"of item {item_id!r}", "in the change log, but not in the items")
    return live


def _check_item(item: ItemRecord, report: VerificationReport, vectors: set[bytes], change: Change | None) -> None:
    if change is None or change.sequence != item.sequence:
        logged = "none" if change is None else str(change.sequence)
        report.note("log", f"of item {item.item_id!r}", f"its last change is {item.sequence}, in the log it is {logged}")
    elif (change.operation is Operation.DELETE) != item.deleted:
        report.note("log", f"of item {item.item_id!r}", f"deleted is {item.deleted}, the log says {change.operation.name}")
    # Of a deleted item too: it is still a valid click.
    for fingerprint, text in item.texts.items():
        if fingerprint + text not in vectors:
            encoder = fingerprint.hex()[:12]
            report.note("missing vector", f"of item {item.item_id!r}", f"none that is sound under encoder key {encoder}")
