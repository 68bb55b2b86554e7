"""The ranker of a serving process: a table of rows that grows and shrinks while requests are answered."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmgr_core.errors import InputError
from llmgr_core.ranker.item_rows import ItemRows
from llmgr_core.ranker.parts import RankerParts
from llmgr_core.ranker.ranking import Ranking
from llmgr_core.ranker.snapshot import UNKNOWN, Snapshot

if TYPE_CHECKING:
    from llmgr_core.transitions.borrowing import BorrowedTransitions, Loan

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowChange:
    """What happened to one item.

    Attributes:
        item_id: any string.
        vector: its text vector e_v (float16 [D]) as it is now, or None where it has no text.
        removed: the item was deleted; its ``vector`` is only looked at where the ranker does not know it yet, so that it is
            valid in a session.
    """

    item_id: str
    vector: npt.NDArray[np.floating] | None = None
    removed: bool = False


class RankerRuntime:
    """Ranks sessions; follows inserts and deletions without ever making a request wait.

    A reader takes ``snapshot`` once and works on it. Writers (one at a time, a lock sees to it) build the next snapshot
    beside the current one and publish it by a single assignment.

    Args:
        parts: the fixed parts, from ``Bundle.parts()``.
        vectors: text vectors e_v, float16 [V, D], in the bundle's item order; None for a ranker without text.
        present: bool [V], which items have a vector; None means all of them.
        sequence: number of the last store change that ``vectors`` contains.

    Raises:
        InputError: vectors of another length or number, or one that is not finite.
    """

    _snapshot: Snapshot

    def __init__(
        self,
        parts: RankerParts,
        vectors: npt.NDArray[np.floating] | None = None,
        present: npt.NDArray[np.bool_] | None = None,
        sequence: int = 0,
    ) -> None:
        if vectors is not None and len(vectors) != parts.num_items:
            raise InputError(f"{len(vectors)} text vectors for the {parts.num_items} items of the bundle")
        self.parts = parts
        self._writer = threading.Lock()
        self._takes_text = parts.takes_text
        has_text = np.zeros(parts.num_items, dtype=np.bool_)
        if vectors is not None and parts.transform is not None:
            has_text[:] = self._takes_text if present is None else present & self._takes_text
            rows = parts.transform.rows(parts.id_vectors, parts.has_id, vectors, has_text)
        else:
            rows = np.where(parts.has_id[:, None], parts.id_vectors, np.float32(0.0))
        self._item_ids = list(parts.item_ids)
        self._index_of = {item_id: index for index, item_id in enumerate(self._item_ids)}
        self._empty = set(np.flatnonzero(~parts.has_id & ~has_text).tolist())
        self._borrowed: BorrowedTransitions | None = None
        if parts.lenders is not None and parts.transitions is not None:
            borrowing = (parts.popularity == 0) & has_text
            known = np.zeros((parts.num_items, 0), dtype=np.float16) if vectors is None else vectors
            self._borrowed = parts.lenders.lend(parts.transitions, known, borrowing)
        self._publish(ItemRows.from_array(rows), _ascending(self._empty), frozenset(), sequence)

    @property
    def snapshot(self) -> Snapshot:
        """The newest state; take it once a request."""
        return self._snapshot

    @property
    def version(self) -> str:
        return self.parts.version

    def rank(
        self,
        clicks: Indices,
        k: int = 20,
        exclude: Indices | None = None,
        candidates: Indices | None = None,
        include_seen: bool | None = None,
    ) -> Ranking:
        """``Snapshot.rank`` on the newest state."""
        return self._snapshot.rank(clicks, k, exclude, candidates, include_seen)

    def move_rows(self, move: Callable[[ItemRows], ItemRows]) -> None:
        """Hold the rows elsewhere; what they are stays as it is (see ``ItemRows.shared``)."""
        with self._writer:
            self._snapshot = dataclasses.replace(self._snapshot, rows=move(self._snapshot.rows))

    def upsert(self, item_id: str, vector: npt.NDArray[np.floating] | None) -> None:
        """Take in one item: a new one, one with other text, or a deleted one that came back.

        Raises:
            InputError: a vector of another length, or one that is not finite. Nothing changes.
        """
        if vector is not None and self.parts.transform is not None:
            self.parts.transform.require_usable(vector)
        self.apply([RowChange(item_id, vector)])

    def remove(self, item_id: str) -> None:
        """Take an item out of every later ranking; it stays valid in a session. An unknown id is ignored."""
        self.apply([RowChange(item_id, removed=True)])

    def apply(self, changes: Iterable[RowChange], sequence: int | None = None) -> list[str]:
        """Take in many changes, in order, as one new state.

        A change whose vector cannot be used leaves its item as it was, so that one bad record never stops the others.

        Args:
            changes: see RowChange.
            sequence: number of the last of them in the change log.

        Returns:
            Item ids of the changes that were refused.
        """
        with self._writer:
            return self._apply(list(changes), sequence)

    def _apply(self, changes: list[RowChange], sequence: int | None) -> list[str]:
        current = self._snapshot
        deleted, empty = set(current.deleted), set(self._empty)
        edited: dict[int, npt.NDArray[np.float32]] = {}
        added: dict[str, int] = {}
        added_rows: list[npt.NDArray[np.float32]] = []
        loans: dict[int, Loan | None] = {}
        refused: list[str] = []
        for change in changes:
            index = self._index_of.get(change.item_id, added.get(change.item_id, UNKNOWN))
            if change.removed and index != UNKNOWN:
                deleted.add(index)
                continue
            try:
                row = self._row(index, change.vector)
            except InputError:
                refused.append(change.item_id)
                continue
            if index == UNKNOWN:
                if row is None:
                    continue
                index = added[change.item_id] = current.rows.count + len(added)
                added_rows.append(row)
                loans[index] = self._loan(index, change.vector)
                if change.removed:
                    deleted.add(index)
                continue
            deleted.discard(index)
            if index >= current.rows.count:
                added_rows[index - current.rows.count] = row if row is not None else np.zeros_like(added_rows[0])
            else:
                edited[index] = row if row is not None else np.zeros(current.rows.dimension, dtype=np.float32)
            loans[index] = self._loan(index, change.vector)
            (empty.add if row is None else empty.discard)(index)
        rows = current.rows
        if edited:
            rows = rows.replaced(edited)
        if added:
            rows = rows.extended(np.stack(added_rows))
        unrankable = current.unrankable
        if deleted != current.deleted or empty != self._empty:
            unrankable = _ascending(deleted | empty)
        self._empty = empty
        if self._borrowed is not None:
            self._borrowed = self._borrowed.with_loans(loans)
        # Names last: a snapshot never looks past its own rows, so readers of the current one do not see them.
        self._item_ids.extend(added)
        self._index_of.update(added)
        reached = current.sequence if sequence is None else sequence
        self._publish(rows, unrankable, frozenset(deleted), reached)
        return refused

    def _publish(self, rows: ItemRows, unrankable: Indices, deleted: frozenset[int], sequence: int) -> None:
        transitions = self.parts.transitions if self._borrowed is None else self._borrowed
        self._snapshot = Snapshot(self.parts, rows, unrankable, deleted, sequence, transitions, self._index_of, self._item_ids)

    def _loan(self, index: int, vector: npt.NDArray[np.floating] | None) -> Loan | None:
        """Of whom an item borrows transitions; None for one with training clicks, or without text."""
        parts = self.parts
        clicked = index < parts.num_items and bool(parts.popularity[index])
        if parts.lenders is None or parts.transitions is None or vector is None or clicked:
            return None
        return parts.lenders.loan(vector, parts.transitions.settings)

    def _row(self, index: int, vector: npt.NDArray[np.floating] | None) -> npt.NDArray[np.float32] | None:
        known = 0 <= index < self.parts.num_items and bool(self.parts.has_id[index])
        id_vector = self.parts.id_vectors[index] if known else None
        if self.parts.transform is None or (0 <= index < len(self._takes_text) and not self._takes_text[index]):
            return id_vector
        return self.parts.transform.row(id_vector, vector)


def _ascending(indices: set[int]) -> Indices:
    return np.array(sorted(indices), dtype=np.int64)
