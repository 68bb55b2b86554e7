"""How far stated probabilities are from what happened."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def expected_calibration_error(
    probabilities: npt.NDArray[np.floating], happened: npt.NDArray[np.bool_], bins: int = 15
) -> float:
    """ECE = sum over bins of (share of examples) * |mean probability - share that happened|, bins of equal population.

    Top probabilities over a large catalogue crowd near zero, where bins of equal width would hold nearly all examples.

    Args:
        probabilities: float [n], stated probability of each event, in [0, 1].
        happened: bool [n].
        bins: at most so many bins.

    Returns:
        The error in [0, 1]; 0 for no examples.

    Raises:
        ValueError: a probability lies outside [0, 1] or is NaN.
    """
    if not len(probabilities):
        return 0.0
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError("a probability lies outside [0, 1]")
    order = np.argsort(probabilities, kind="stable")
    stated = np.array_split(probabilities[order].astype(np.float64), min(bins, len(order)))
    came = np.array_split(happened[order].astype(np.float64), min(bins, len(order)))
    gaps = [len(one) * abs(one.mean() - other.mean()) for one, other in zip(stated, came, strict=True)]
    return float(sum(gaps) / len(order))
