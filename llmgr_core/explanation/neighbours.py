"""The nearest items of an item, by each of the vectors that the ranker has of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.snapshot import Snapshot
from llmgr_core.ranker.whitening import unit_length

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

ITEMS_AT_ONCE = 256


@dataclass(frozen=True)
class Neighbours:
    """The nearest items in one space.

    Attributes:
        items: int64 [m], the nearest first; of equally near ones the lower index.
        similarities: float32 [m], cosines, or W[a, v] for transitions.
    """

    items: Indices
    similarities: Floats

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Space:
    """Vectors to compare items by.

    Attributes:
        vectors: float [V, d].
        known: bool [V], items that have one.
    """

    vectors: npt.NDArray[np.floating]
    known: Mask

    @cached_property
    def directions(self) -> Floats:
        """Vectors of unit length, float32 [V, d]."""
        return unit_length(self.vectors)

    @classmethod
    def centred(cls, vectors: npt.NDArray[np.floating], known: Mask) -> Space:
        """Directions less their mean over the known items.

        Text vectors share a large part, which says "a product" and nothing about which; without it their cosines spread out.
        """
        unit = unit_length(vectors)
        return cls(unit - unit[known].mean(axis=0) if known.any() else unit, known)

    def nearest(self, item: int, k: int) -> Neighbours | None:
        """The k items with the largest cosine to this one; None where it has no vector here."""
        if not self.known[item]:
            return None
        cosines = self.directions @ self.directions[item]
        others = self.known.copy()
        others[item] = False
        candidates = np.flatnonzero(others)
        best = candidates[np.argsort(-cosines[candidates], kind="stable")[:k]]
        return Neighbours(best, cosines[best])


def fused_space(snapshot: Snapshot) -> Space:
    """Rows c_v, what the ranker compares; deleted items have none."""
    rows = snapshot.rows.vectors(np.arange(snapshot.num_items))
    known = np.any(rows != 0.0, axis=1)
    known[snapshot.unrankable] = False
    return Space(rows, known)


def following(snapshot: Snapshot, item: int, k: int) -> Neighbours | None:
    """The k items that the ranker's transitions lead to, by t(s, v) of a session with this click alone."""
    if snapshot.transitions is None:
        return None
    found, strengths = snapshot.transitions.lookup(np.array([item], dtype=np.int64))
    others = found != item
    found, strengths = found[others], strengths[others]
    if not len(found):
        return None
    best = np.argsort(-strengths, kind="stable")[:k]
    return Neighbours(found[best].astype(np.int64), strengths[best])


def overlaps(lists: Mapping[str, Neighbours | None]) -> dict[tuple[str, str], int]:
    """How many items two lists share, for every pair that is there."""
    present = [(name, set(one.items.tolist())) for name, one in lists.items() if one is not None]
    return {(a, b): len(one & other) for (a, one), (b, other) in combinations(present, 2)}


def share_alike(items: Indices, codes: Sequence[int] | npt.NDArray[np.integer], item: int) -> float | None:
    """Share of ``items`` with the code (brand, category) of ``item``; None where it has none or the list is empty.

    Args:
        codes: integer [n]; -1: none. Items beyond it count as having none.
    """
    known = np.asarray(codes)
    if not len(items) or item >= len(known) or known[item] < 0:
        return None
    inside = items[items < len(known)]
    return float((known[inside] == known[item]).sum() / len(items))


def nearest_of_many(space: Space, items: Indices, k: int) -> Indices:
    """The k nearest of each item, int64 [n, k] in no order; every item must be known to the space, which knows more than k."""
    found = np.empty((len(items), k), dtype=np.int64)
    for start in range(0, len(items), ITEMS_AT_ONCE):
        some = items[start : start + ITEMS_AT_ONCE]
        cosines = space.directions[some] @ space.directions.T
        cosines[:, ~space.known] = -np.inf
        cosines[np.arange(len(some)), some] = -np.inf
        found[start : start + len(some)] = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    return found
