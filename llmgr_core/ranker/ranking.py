"""A ranking: the best items of a score vector, with their probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GROUP = 128
SMALLEST_GROUPED = 4 * GROUP
# Scores whose exponentials are summed at a time; they stay in the processor's cache.
PIECE = 16384


@dataclass(frozen=True)
class Stages:
    """Where the time of one ranking went, in nanoseconds.

    Attributes:
        encode_ns: clicks to the session vector z_s.
        score_ns: logits of all items or of the candidates, the transition term, and hiding what may not be ranked.
        select_ns: the k best and their probabilities.
    """

    encode_ns: int
    score_ns: int
    select_ns: int


@dataclass(frozen=True)
class Ranking:
    """Items in descending order of score; equal scores in ascending order of index.

    Attributes:
        indices: int64 [m], item indices; m is less than k where fewer items are rankable.
        scores: float32 [m], calibrated scores.
        probabilities: float32 [m], softmax of the scores over every rankable item (not only these m); NaN where
            ``approximate``.
        fallback: True where no known click was given, so that the order is that of popularity.
        stages: where the time went; None where one program on a device does all of it.
        approximate: True where an index was searched rather than every item scored, so that better items may be missing.
    """

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    fallback: bool = False
    stages: Stages | None = None
    approximate: bool = False

    def __len__(self) -> int:
        return len(self.indices)


def best_of(
    scores: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The k best of a score vector: their places int64 [m], scores float32 [m] and probabilities float32 [m] as in a Ranking.

    Args:
        scores: float32 [n]; -inf marks what may not be ranked. Not changed.
        k: how many are wanted, at least 1.
    """
    best = _best_places(scores, k)
    chosen = scores[best]
    if not len(best):
        return best, chosen, chosen
    log_sum = float(chosen[0]) + math.log(_sum_of_exp(scores, chosen[0]))
    return best, chosen, np.exp(chosen - np.float32(log_sum))


def _sum_of_exp(scores: npt.NDArray[np.float32], top: np.float32) -> float:
    """Sum of exp(score - top), a piece at a time: a million at once would go to memory and back, at six times the cost.

    Items more than 80 below the top weigh less than the rounding of the sum: exp underflows to 0 for them, as it should.
    """
    total, room = 0.0, np.empty(min(len(scores), PIECE), dtype=np.float32)
    for start in range(0, len(scores), PIECE):
        piece = scores[start : start + PIECE]
        terms = np.subtract(piece, top, out=room[: len(piece)])
        total += float(np.exp(terms, out=terms).sum())
    return total


def _best_places(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Places of the k largest finite scores, best first, ties in ascending order."""
    candidates = np.flatnonzero(scores >= _threshold(scores, k))
    values = scores[candidates]
    if len(candidates) > 8 * k:
        limit = np.partition(values, len(values) - k)[len(values) - k]
        keep = values >= limit
        candidates, values = candidates[keep], values[keep]
    order = np.argsort(-values, kind="stable")[:k]
    best = candidates[order]
    return best[np.isfinite(scores[best])]


def _threshold(scores: npt.NDArray[np.float32], k: int) -> np.float32:
    """A value that at least k scores reach, cheap to find: the k-th largest of the maxima of groups."""
    groups = len(scores) // GROUP
    if k > groups or len(scores) < SMALLEST_GROUPED:
        return scores.dtype.type(-np.inf)
    # A group is every groups-th score: maxima of rows, elementwise, take a fifth of the time of maxima within rows.
    maxima = scores[: groups * GROUP].reshape(GROUP, groups).max(axis=0)
    limit: np.float32 = np.partition(maxima, groups - k)[groups - k]
    return limit
