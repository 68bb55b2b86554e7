"""What each click says about an item by transitions, in the ranker and in the training sessions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmgr_core.explanation.score_parts import values_at
from llmgr_core.ranker.snapshot import UNKNOWN, Snapshot
from llmgr_core.sessions import Sessions

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def transition_shares(snapshot: Snapshot, clicks: Indices, items: Indices) -> Floats:
    """w log(1 + c t(s, v)) / temperature of each item, split between the clicks.

    t(s, v) is a sum over the clicks; each gets the share of the term that it has of t. Clicks before the last
    ``transitions.clicks`` ones get nothing.

    Args:
        clicks: int64 [t].
        items: int64 [m].

    Returns:
        float32 [t, m]; each column adds up to the term.
    """
    of_click = np.zeros((len(clicks), len(items)), dtype=np.float32)
    scoring, graph = snapshot.parts.scoring, snapshot.transitions
    if graph is None or scoring.transition_weight == 0.0 or not len(items):
        return of_click
    for place in range(len(clicks)):
        alone = np.full(len(clicks), UNKNOWN, dtype=np.int64)
        alone[place] = clicks[place]
        of_click[place] = values_at(items, *graph.lookup(alone))
    total = of_click.sum(axis=0, dtype=np.float64)
    term = np.log1p(scoring.transition_slope * total) * scoring.transition_weight / scoring.temperature
    shares: Floats = (of_click * np.divide(term, total, out=np.zeros_like(total), where=total > 0)).astype(np.float32)
    return shares


def sessions_followed(train: Sessions, clicks: Indices, items: Indices, num_items: int) -> Indices:
    """Training sessions in which an item came after a click's item, at any distance.

    Args:
        train: training sessions.
        clicks: int64 [t]; items that training does not know count nothing.
        items: int64 [m].
        num_items: known items, at least every index in ``clicks`` and ``items`` plus one.

    Returns:
        int64 [t, m].
    """
    counts = np.zeros((len(clicks), len(items)), dtype=np.int64)
    for item in np.unique(clicks):
        where = np.flatnonzero(train.items == item)
        owners, first = np.unique(np.searchsorted(train.offsets, where, side="right") - 1, return_index=True)
        later = [np.zeros(0, dtype=train.items.dtype)]
        for owner, start in zip(owners, where[first], strict=True):
            later.append(np.unique(train.items[start + 1 : train.offsets[owner + 1]]))
        followers = np.bincount(np.concatenate(later), minlength=num_items)
        counts[clicks == item] = followers[items]
    return counts


def sessions_together(train: Sessions, item: int, items: Indices, num_items: int) -> Indices:
    """Training sessions that hold ``item`` and each of ``items`` (int64 [m]), in any order: int64 [m]."""
    owners = np.unique(np.searchsorted(train.offsets, np.flatnonzero(train.items == item), side="right") - 1)
    held = [np.zeros(0, dtype=train.items.dtype)]
    for owner in owners:
        held.append(np.unique(train.items[train.offsets[owner] : train.offsets[owner + 1]]))
    together: Indices = np.bincount(np.concatenate(held), minlength=num_items)[items]
    return together
