"""One consistent state of the ranker; a request works on one from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.item_rows import ItemRows
from llmgr_core.ranker.parts import RankerParts, Transitions
from llmgr_core.ranker.ranking import Ranking, Stages, best_of

Indices = npt.NDArray[np.int64]
# ItemRows.products into an array of its own; takes rows, vector, cosine and between.
Scan = Callable[[ItemRows, npt.NDArray[np.float32], bool, Callable[[], None] | None], npt.NDArray[np.float32]]
UNKNOWN = -1


@dataclass(frozen=True)
class Snapshot:
    """Rows, names and tombstones at one moment.

    Attributes:
        parts: the fixed parts of the ranker.
        rows: c_v of every known item, new ones at the end.
        unrankable: int64 [u], items that are deleted or have neither an ID vector nor text; in ascending order.
        deleted: those of them that are deleted.
        sequence: number of the last change that went in.
        transitions: the sparse term, what new items borrow included, or None.
    """

    parts: RankerParts
    rows: ItemRows
    unrankable: Indices
    deleted: frozenset[int]
    sequence: int
    transitions: Transitions | None
    _index_of: Mapping[str, int]
    _item_ids: Sequence[str]

    @property
    def num_items(self) -> int:
        """Known items, deleted ones included."""
        return self.rows.count

    @property
    def num_rankable(self) -> int:
        return self.rows.count - len(self.unrankable)

    def item_id(self, index: int) -> str:
        return self._item_ids[index]

    def index_of(self, item_id: str) -> int:
        """Index of an item, -1 where it is not known."""
        index = self._index_of.get(item_id, UNKNOWN)
        return index if index < self.rows.count else UNKNOWN

    def indices(self, item_ids: Iterable[str]) -> Indices:
        """Indices of items, int64; -1 for each that is not known (a deleted item is known)."""
        return np.array([self.index_of(item_id) for item_id in item_ids], dtype=np.int64)

    def rank(
        self,
        clicks: Indices,
        k: int = 20,
        exclude: Indices | None = None,
        candidates: Indices | None = None,
        include_seen: bool | None = None,
        between: Callable[[], None] | None = None,
        scan: Scan | None = None,
    ) -> Ranking:
        """Rank what may come next in a session.

        Exclusions go first, then the clicked items (unless ``include_seen``), then the candidates; what is left is ranked,
        and probabilities are over all of it whatever ``k`` is. Deleted items are never ranked.

        Args:
            clicks: int64, item indices in click order; -1 (unknown) is skipped. Without any known click the order is that
                of popularity, and ``fallback`` is set.
            k: how many items, at least 1.
            exclude: int64, items never to be ranked in this answer.
            candidates: int64, the only items to rank; None for all.
            include_seen: whether clicked items may be ranked; None for the ranker's own default.
            between: called after the encoder and between the blocks of the table; what it raises ends the work.
            scan: scores all rows where that is wanted; None does it here.
        """
        clicks = clicks[clicks != UNKNOWN]
        hidden = [self.unrankable]
        if exclude is not None:
            hidden.append(exclude[exclude != UNKNOWN])
        seen_allowed = self.parts.scoring.include_seen if include_seen is None else include_seen
        if not seen_allowed:
            hidden.append(clicks)
        chosen = None if candidates is None else np.unique(candidates[candidates != UNKNOWN])
        started = time.perf_counter_ns()
        vector = self._session_vector(clicks)
        encoded = time.perf_counter_ns()
        if between is not None:
            between()
        query = None if vector is None else self._query(vector)
        exact_list = chosen
        if query is not None and chosen is None:
            chosen = self._shortlist(query, clicks, k + sum(map(len, hidden[1:])))
        scores = self._visible_scores(query, clicks, chosen, hidden, between, scan)
        # Too much of what was found is hidden.
        if chosen is not exact_list and np.count_nonzero(scores > -np.inf) < k:
            chosen = exact_list
            scores = self._visible_scores(query, clicks, chosen, hidden, between, scan)
        scored = time.perf_counter_ns()
        places, best, probabilities = best_of(scores, k)
        stages = Stages(encoded - started, scored - encoded, time.perf_counter_ns() - scored)
        indices = places if chosen is None else chosen[places]
        approximate = chosen is not exact_list
        if approximate:
            # What they would be over is not known.
            probabilities = np.full(len(places), np.nan, dtype=np.float32)
        return Ranking(indices, best, probabilities, vector is None, stages, approximate)

    def encoded_clicks(self, clicks: Indices) -> Indices:
        """Those of known clicks, int64, that the encoder reads: the last ``max_clicks``, of items that have a row."""
        return self._encoded(clicks)[0]

    def transition_terms(self, clicks: Indices) -> tuple[Indices, npt.NDArray[np.float32]]:
        """w log(1 + c t(s, v)) / temperature where it is not zero: items int64 [m], distinct and rising, and terms [m]."""
        scoring, graph = self.parts.scoring, self.transitions
        if graph is None or scoring.transition_weight == 0.0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        items, strengths = graph.lookup(clicks)
        terms = np.log1p(np.float32(scoring.transition_slope) * strengths)
        terms *= np.float32(scoring.transition_weight / scoring.temperature)
        return items.astype(np.int64), terms

    def _session_vector(self, clicks: Indices) -> npt.NDArray[np.float32] | None:
        """z_s float32 [d]; None where no click has a row."""
        encoded, vectors = self._encoded(clicks)
        if not len(encoded):
            return None
        nodes, click_nodes = _distinct(encoded.tolist())
        return self.parts.session_vector(vectors[nodes], click_nodes)

    def _encoded(self, clicks: Indices) -> tuple[Indices, npt.NDArray[np.float32]]:
        """``encoded_clicks`` and their rows, float32 [n, d]."""
        encoded = clicks[-self.parts.max_clicks :]
        vectors = self.rows.vectors(encoded)
        has_row = vectors.any(axis=1)
        if has_row.all():
            return encoded, vectors
        return encoded[has_row], vectors[has_row]

    def _query(self, vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [d], whose products with rows (or their directions) are calibrated scores."""
        parts = self.parts
        factor = 1.0 / parts.scoring.temperature
        if parts.cosine:
            factor *= parts.logit_scale / max(float(np.sqrt(vector @ vector)), 1e-6)
        return vector * np.float32(factor)

    def _shortlist(self, query: npt.NDArray[np.float32], clicks: Indices, wanted: int) -> Indices | None:
        """The only items worth scoring, int64, distinct and rising; None for all.

        Args:
            wanted: how many of the best must be among them, hidden ones included.
        """
        return None

    def _visible_scores(
        self,
        query: npt.NDArray[np.float32] | None,
        clicks: Indices,
        chosen: Indices | None,
        hidden: list[Indices],
        between: Callable[[], None] | None,
        scan: Scan | None,
    ) -> npt.NDArray[np.float32]:
        """Calibrated scores of all items, or of the chosen ones; -inf for hidden ones."""
        scores = self._popularity(chosen) if query is None else self._scores(query, clicks, chosen, between, scan)
        if chosen is None:
            for part in hidden:
                scores[part] = -np.inf
        else:
            scores[np.isin(chosen, np.concatenate(hidden))] = -np.inf
        return scores

    def _scores(
        self,
        query: npt.NDArray[np.float32],
        clicks: Indices,
        chosen: Indices | None,
        between: Callable[[], None] | None = None,
        scan: Scan | None = None,
    ) -> npt.NDArray[np.float32]:
        """Calibrated scores of all items, or of the chosen ones."""
        if chosen is None:
            scores = (scan or scanned)(self.rows, query, self.parts.cosine, between)
        else:
            scores = self.rows.products_at(chosen, query, self.parts.cosine)
        self._add_transitions(scores, clicks, chosen)
        return scores

    def _add_transitions(self, scores: npt.NDArray[np.float32], clicks: Indices, chosen: Indices | None) -> None:
        items, terms = self.transition_terms(clicks)
        if chosen is None:
            scores[items] += terms
        elif len(chosen):
            places = np.minimum(np.searchsorted(chosen, items), len(chosen) - 1)
            match = chosen[places] == items
            scores[places[match]] += terms[match]

    def _popularity(self, chosen: Indices | None) -> npt.NDArray[np.float32]:
        """log(1 + training clicks): its softmax is the share of clicks, one added to each item."""
        scores = np.zeros(self.rows.count, dtype=np.float32)
        scores[: self.parts.num_items] = np.log1p(self.parts.popularity)
        return scores if chosen is None else scores[chosen]


def scanned(
    rows: ItemRows, vector: npt.NDArray[np.float32], cosine: bool, between: Callable[[], None] | None
) -> npt.NDArray[np.float32]:
    """The plain ``Scan``."""
    scores = np.empty(rows.count, dtype=np.float32)
    rows.products(vector, cosine, out=scores, between=between)
    return scores


def _distinct(clicks: Sequence[int]) -> tuple[list[int], Indices]:
    """A place of each distinct item, by ascending item, and for every click the number of its item: np.unique for a few."""
    place = {item: number for number, item in enumerate(clicks)}
    items = sorted(place)
    number = {item: node for node, item in enumerate(items)}
    return [place[item] for item in items], np.array([number[item] for item in clicks], dtype=np.int64)
