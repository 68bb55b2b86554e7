"""Stated probabilities beside what happened, in bins: what a calibration error is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15


def reliability(
    probabilities: npt.NDArray[np.floating], happened: npt.NDArray[np.bool_], bins: int = BINS
) -> list[dict[str, Any]]:
    """Bins of equal population, as expected_calibration_error takes them.

    Args:
        probabilities: float [n], stated.
        happened: bool [n].

    Returns:
        One entry a bin, lowest probabilities first: ``examples``, mean ``stated`` probability, ``observed`` share.
    """
    if not len(probabilities):
        return []
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return [
        {
            "examples": len(part),
            "stated": float(probabilities[part].astype(np.float64).mean()),
            "observed": float(happened[part].mean()),
        }
        for part in parts
    ]
