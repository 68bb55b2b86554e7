"""A snapshot whose table is searched by an index; what the index has not seen yet is scored all the same."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.row_index import RowIndex
from llmgr_core.ranker.snapshot import Snapshot

Indices = npt.NDArray[np.int64]

# Of what the index finds, some is hidden; and its half precision may exchange neighbours at the end of the list.
SPARE = 64


@dataclass(frozen=True)
class ApproximateSnapshot(Snapshot):
    """Ranks what an index finds, together with every item that follows a click and every item of ``tail``, by exact scores.

    Rankings have no probabilities: their sum runs over items that nobody looked at. Candidate lists and rankings by popularity
    are exact, as is a ranking of which the index finds too little because most of it is hidden.

    Attributes:
        exact: the snapshot it stands for.
        index: over the first rows as they were.
        tail: int64, items that were inserted or changed since; ascending.
    """

    exact: Snapshot
    index: RowIndex
    tail: Indices

    @classmethod
    def over(cls, snapshot: Snapshot, index: RowIndex, tail: Indices) -> ApproximateSnapshot:
        """The same state, searched by an index."""
        fields = {field.name: getattr(snapshot, field.name) for field in dataclasses.fields(Snapshot)}
        return cls(**fields, exact=snapshot, index=index, tail=tail)

    def _shortlist(self, query: npt.NDArray[np.float32], clicks: Indices, wanted: int) -> Indices:
        found = self.index.search(query, 2 * wanted + SPARE)
        # A request that began long ago may meet an index that is newer than its rows.
        found = found[found < self.rows.count]
        return np.unique(np.concatenate([found, self.tail, self.transition_terms(clicks)[0]]))
