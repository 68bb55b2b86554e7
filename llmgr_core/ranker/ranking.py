"""A ranking: the best items of a score vector, with their probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK = 128
SMALLEST_BLOCKED = 4 * BLOCK


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
    top = float(chosen[0])
    # Items more than 80 below the best weigh less than the rounding of the sum: exp underflows to 0 for them, as it should.
    log_sum = top + math.log(float(np.exp(scores - chosen[0]).sum()))
    return best, chosen, np.exp(chosen - np.float32(log_sum))


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
    """A value that at least k scores reach, cheap to find: the k-th largest of the block maxima."""
    blocks = len(scores) // BLOCK
    if k > blocks or len(scores) < SMALLEST_BLOCKED:
        return scores.dtype.type(-np.inf)
    maxima = scores[: blocks * BLOCK].reshape(blocks, BLOCK).max(axis=1)
    limit: np.float32 = np.partition(maxima, blocks - k)[blocks - k]
    return limit
