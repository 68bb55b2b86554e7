"""V-SKNN: what the most similar training sessions clicked; a strong baseline that learns nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.evaluation.evaluate import evaluate
from llmgr_core.evaluation.metrics import summarise
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.sknn import SessionNeighbourSettings

NEIGHBOURS_TRIED = (50, 100, 200, 500, 1000)
CHOSEN_ON = 2000
METRIC = "NDCG@20"
# Similarities that differ by rounding alone are level; the later session is then the nearer one.
SIMILARITY_DIGITS = 12

Ints = npt.NDArray[np.int64]


class SessionNeighbourScorer:
    """Score of an item: the similarities of the nearest sessions that hold it.

        score(s, v) = sum_{m in N_k(s)} cos(w_s, b_m) b_m(v)

    w_s(v) is place / |s| of the last click on v in the prefix s, so that the last click counts 1 and earlier ones less, in
    a straight line; b_m(v) is 1 where session m holds v, else 0. N_k(s) are the k sessions with the largest cosine among the n
    latest that share an item with s. Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", User
    Modeling and User-Adapted Interaction 28 (2018), there V-SKNN; k = 500 of n = 1,000 as for S-KNN in Jannach and Ludewig,
    "When Recurrent Neural Networks meet the Neighborhood for Session-Based Recommendation", RecSys 2017. The session that
    a prefix was cut from is no neighbour of it.

    Args:
        sessions: training sessions, oldest first.
        num_items: V.
        settings: k and n; ``neighbours`` must not be 0 (see ``chosen_settings``).
        numbers: int [S], number of each session on the scale of ``Examples.sessions``; None: they are numbered from 0.

    Raises:
        ValueError: no number of neighbours.
    """

    name = "sknn"

    def __init__(
        self,
        sessions: Sessions,
        num_items: int,
        settings: SessionNeighbourSettings,
        numbers: npt.NDArray[np.integer] | None = None,
    ) -> None:
        from scipy.sparse import csr_array

        if settings.neighbours < 1:
            raise ValueError("choose the number of neighbours first")
        self._settings, self._num_items = settings, num_items
        self._numbers = np.arange(len(sessions)) if numbers is None else np.asarray(numbers)
        owner = np.repeat(np.arange(len(sessions), dtype=np.int64), sessions.lengths)
        session, item = np.divmod(np.unique(owner * num_items + sessions.items), num_items)
        size = np.bincount(session, minlength=len(sessions))
        shape = (len(sessions), num_items)
        self._held = csr_array((np.ones(len(item)), (session, item)), shape=shape)
        # b_m / |b_m|, by item: a prefix meets only the sessions of its own items
        self._of_item = csr_array((1.0 / np.sqrt(size[session]), (item, session)), shape=shape[::-1])

    def scores(self, examples: Examples) -> Tensor:
        """float32 [B, V], zero for items that no neighbour holds."""
        from scipy.sparse import csr_array

        shared = (self._weights(examples.prefixes()) @ self._of_item).tocsr()
        row = np.repeat(np.arange(len(examples), dtype=np.int64), np.diff(shared.indptr))
        session, cosine = shared.indices.astype(np.int64), shared.data
        kept = np.flatnonzero(self._numbers[session] != examples.sessions[row])
        kept = kept[np.lexsort((-session[kept], row[kept]))]
        kept = kept[_place_in_row(row[kept]) < self._settings.recent]
        kept = kept[np.lexsort((-session[kept], -cosine[kept].round(SIMILARITY_DIGITS), row[kept]))]
        kept = kept[_place_in_row(row[kept]) < self._settings.neighbours]
        shape = (len(examples), self._held.shape[0])
        nearest = csr_array((cosine[kept], (row[kept], session[kept])), shape=shape)
        return torch.from_numpy((nearest @ self._held).toarray().astype(np.float32))

    def _weights(self, prefixes: Sessions) -> Any:
        """w_s / |w_s| of each prefix, float64 [B, V], sparse."""
        from scipy.sparse import csr_array

        lengths = prefixes.lengths
        owner = np.repeat(np.arange(len(prefixes), dtype=np.int64), lengths)
        place = np.arange(len(owner)) - np.repeat(prefixes.offsets[:-1], lengths) + 1
        # The last click on an item comes first in the reversed order, and np.unique takes the first.
        pairs, last = np.unique((owner * self._num_items + prefixes.items)[::-1], return_index=True)
        weight = (place / lengths[owner])[::-1][last]
        row, item = np.divmod(pairs, self._num_items)
        norm = np.sqrt(np.bincount(row, weights=weight**2, minlength=len(prefixes)))
        return csr_array((weight / norm[row], (row, item)), shape=(len(prefixes), self._num_items))


def chosen_settings(
    settings: SessionNeighbourSettings,
    sessions: Sessions,
    num_items: int,
    numbers: npt.NDArray[np.integer],
    validation: Examples,
) -> tuple[SessionNeighbourSettings, dict[str, float]]:
    """The settings with a number of neighbours: the one that is set, or for 0 the best on validation examples.

    Args:
        settings: as they were given.
        sessions, num_items, numbers: see SessionNeighbourScorer.
        validation: at most 2,000 of these are ranked, evenly spread; without any, the published number is taken.

    Returns:
        Settings, and validation NDCG@20 (seen items masked) by number of neighbours; empty where nothing was tried.
    """
    if settings.neighbours:
        return settings, {}
    examples = validation.evenly_spread(CHOSEN_ON)
    found: dict[str, float] = {}
    if not len(examples):
        return settings.model_copy(update={"neighbours": SessionNeighbourSettings().neighbours}), found
    for count in NEIGHBOURS_TRIED:
        tried = settings.model_copy(update={"neighbours": count})
        ranks = evaluate(SessionNeighbourScorer(sessions, num_items, tried, numbers), examples)
        found[str(count)] = summarise(ranks.masked)[METRIC]
    best = max(NEIGHBOURS_TRIED, key=lambda count: found[str(count)])
    return settings.model_copy(update={"neighbours": best}), found


def _place_in_row(row: Ints) -> Ints:
    """int64 [M], place of each entry among those of its row; ``row`` int64 [M] ascends."""
    first = np.flatnonzero(np.concatenate(([True], row[1:] != row[:-1]))) if len(row) else np.zeros(0, dtype=np.int64)
    return np.arange(len(row)) - np.repeat(first, np.diff(np.append(first, len(row))))
