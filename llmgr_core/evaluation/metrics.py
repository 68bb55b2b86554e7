"""Ranking metrics of examples with one target each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CUTOFFS = (5, 10, 20)
METRICS = (*(f"HR@{k}" for k in CUTOFFS), *(f"NDCG@{k}" for k in CUTOFFS), "MRR@20")


def per_example_metrics(ranks: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """HR@k = [rank <= k], NDCG@k = [rank <= k] / log2(1 + rank), MRR@20 = [rank <= 20] / rank.

    Args:
        ranks: float [n], 1 is best; fractions where ties were met.

    Returns:
        float64 [n, 7], columns in the order of ``METRICS``.
    """
    ranks = ranks.astype(np.float64)
    gain = 1.0 / np.log2(1.0 + ranks)
    hits = [(ranks <= k).astype(np.float64) for k in CUTOFFS]
    return np.stack([*hits, *(hit * gain for hit in hits), (ranks <= 20) / ranks], axis=1)


def summarise(ranks: npt.NDArray[np.floating]) -> dict[str, float]:
    """Mean of each metric; empty where there is no example."""
    if not len(ranks):
        return {}
    return dict(zip(METRICS, per_example_metrics(ranks).mean(axis=0).tolist(), strict=True))
