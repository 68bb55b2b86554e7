"""How far stated probabilities are from what happened."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.sessions import Sessions


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


def top_probabilities(scores: Tensor, seen: Sessions | None) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Probability of each row's first item, p = softmax(scores), and which item that is.

    Args:
        scores: float [B, V].
        seen: B prefixes whose items are left out of the softmax; None leaves nothing out.

    Returns:
        float64 [B] and int64 [B].
    """
    if seen is not None:
        row = np.repeat(np.arange(len(seen)), seen.lengths)
        scores = scores.clone()
        scores[torch.from_numpy(row), torch.from_numpy(seen.items.astype(np.int64))] = float("-inf")
    best, item = scores.max(dim=1)
    return (best - scores.logsumexp(dim=1)).exp().double().numpy(), item.numpy()
