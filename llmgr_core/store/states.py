"""What reading a store yields: its whole state, what changed since, and what was found damaged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llmgr_core.store.records import Buffer

ROWS_A_COPY = 1024


@dataclass(frozen=True)
class Damage:
    """A record that was skipped because its bytes are not what was written."""

    database: str
    name: str
    reason: str


@dataclass(frozen=True)
class Snapshot:
    """Everything a ranker needs from a store, at one moment.

    Attributes:
        item_ids: those that were asked for first; then items that are live or were once, in the order of their keys. n in all.
        vectors: float16 [n, D]; zeros where ``present`` is False.
        present: bool [n], False for an item without a (sound) vector of this encoder.
        sequences: uint64 [n], each item's last change; 0 for one that the store does not know.
        deleted: bool [n], tombstones; their last vector is among ``vectors``, since they stay valid in a session.
        sequence: newest change.
        transaction: id of the transaction that was read; see EmbeddingStore.transaction_id.
    """

    item_ids: list[str]
    vectors: np.ndarray
    present: np.ndarray
    sequences: np.ndarray
    deleted: np.ndarray
    sequence: int
    transaction: int


@dataclass(frozen=True)
class Update:
    """The state of one item that changed.

    Attributes:
        item_id: which.
        sequence: its last change.
        deleted: whether it is a tombstone now.
        vector: float16 [D], a tombstone's last one included; None for an item without a sound vector of this encoder.
    """

    item_id: str
    sequence: int
    deleted: bool
    vector: np.ndarray | None


@dataclass(frozen=True)
class Updates:
    """What happened after a sequence.

    Attributes:
        updates: items that changed, each once, in its state now.
        sequence: every change up to here is in ``updates``; go on from it.
        behind: whether there is more to read.
    """

    updates: list[Update] = field(default_factory=list)
    sequence: int = 0
    behind: bool = False


def vector_matrix(rows: list[Buffer | None], dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """float16 [n, D] and bool [n] from payloads; a row of another length counts as absent."""
    size = 2 * dimensions
    present = np.fromiter((row is not None and len(row) == size for row in rows), dtype=bool, count=len(rows))
    vectors = np.zeros((len(rows), dimensions), dtype=np.float16)
    # In blocks, because each copy holds the interpreter, and a ranking server reads this beside its calls.
    for start in range(0, len(rows), ROWS_A_COPY):
        block = slice(start, start + ROWS_A_COPY)
        sound = b"".join(row for row in rows[block] if row is not None and len(row) == size)
        vectors[block][present[block]] = np.frombuffer(sound, dtype="<f2").reshape(-1, dimensions)
    return vectors, present
