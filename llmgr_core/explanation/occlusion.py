"""What the ranking would be without one of the clicks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.ranking import Ranking
from llmgr_core.ranker.snapshot import Snapshot

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """Where some items stand in one ranking of all items.

    Attributes:
        scores: float32 [m]; NaN for an item that may not be ranked.
        probabilities: float32 [m]; 0 for such an item.
        ranks: int64 [m], from 1; 0 for such an item.
        fallback: the order is that of popularity: no click has a row.
    """

    scores: Floats
    probabilities: Floats
    ranks: Indices
    fallback: bool


@dataclass(frozen=True)
class Occlusion:
    """Placement of m items without each of t clicks.

    Attributes:
        scores: float32 [t, m]; NaN where the ranking without the click is by popularity, which has no such scores.
        probabilities: float32 [t, m].
        ranks: int64 [t, m].
        fallback: bool [t], without this click nothing is left to encode.
    """

    scores: Floats
    probabilities: Floats
    ranks: Indices
    fallback: npt.NDArray[np.bool_]


def rank_all(snapshot: Snapshot, clicks: Indices, hidden: Indices) -> Ranking:
    """All items that may be ranked, ``hidden`` and (unless the ranker allows them) clicked ones left out."""
    return snapshot.rank(clicks, max(snapshot.num_rankable, 1), exclude=hidden)


def place(ranking: Ranking, items: Indices, num_items: int) -> Placement:
    """Where ``items`` stand in a ranking of all ``num_items`` items."""
    place_of = np.full(num_items, -1, dtype=np.int64)
    place_of[ranking.indices] = np.arange(len(ranking))
    places = place_of[items]
    found = places >= 0
    scores = np.full(len(items), np.nan, dtype=np.float32)
    probabilities = np.zeros(len(items), dtype=np.float32)
    scores[found], probabilities[found] = ranking.scores[places[found]], ranking.probabilities[places[found]]
    return Placement(scores, probabilities, places + 1, ranking.fallback)


def occlude_clicks(snapshot: Snapshot, clicks: Indices, items: Indices) -> Occlusion:
    """Rank again without each click in turn.

    What may be ranked stays the same: a clicked item that is left out of the session does not come back as a candidate.

    Args:
        clicks: int64 [t], known items in click order; of a repeated item one click goes at a time.
        items: int64 [m].
    """
    t, m = len(clicks), len(items)
    hidden = np.zeros(0, dtype=np.int64) if snapshot.parts.scoring.include_seen else np.unique(clicks)
    scores, probabilities = np.zeros((t, m), dtype=np.float32), np.zeros((t, m), dtype=np.float32)
    ranks, fallback = np.zeros((t, m), dtype=np.int64), np.zeros(t, dtype=np.bool_)
    unread = t - clicks_looked_at(snapshot)
    unchanged = place(rank_all(snapshot, clicks, hidden), items, snapshot.num_items) if unread > 0 else None
    for number in range(t):
        found = unchanged
        if found is None or number >= unread:
            found = place(rank_all(snapshot, np.delete(clicks, number), hidden), items, snapshot.num_items)
        scores[number] = np.nan if found.fallback else found.scores
        probabilities[number], ranks[number], fallback[number] = found.probabilities, found.ranks, found.fallback
    return Occlusion(scores, probabilities, ranks, fallback)


def clicks_looked_at(snapshot: Snapshot) -> int:
    """How many of the last clicks the encoder or the transitions look at; earlier ones change nothing."""
    graph = snapshot.parts.transitions
    return max(snapshot.parts.max_clicks, 0 if graph is None else graph.settings.clicks)
