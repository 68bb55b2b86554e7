"""Examples by how often their target was clicked in training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BUCKETS = ("0", "1-4", "5-10", "11-49", "50+")
FIRST_COUNTS = (1, 5, 11, 50)


def bucket_of(train_counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Place in ``BUCKETS`` of targets with these many clicks in the training sessions: int [n] -> int64 [n]."""
    return np.searchsorted(FIRST_COUNTS, train_counts, side="right").astype(np.int64)
