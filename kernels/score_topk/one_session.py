"""One session against a catalogue whose scores fit a core's cache: the path of a ranking request on a CPU."""

from __future__ import annotations

import numpy as np
import torch

from kernels.score_topk.catalogue_pass import SLACK_EPSILONS
from kernels.score_topk.ragged import RaggedItems, RaggedScores


def score_one_session(
    z: torch.Tensor, table: torch.Tensor, k: int, exclude: RaggedItems | None, additive: RaggedScores | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Same meaning as ``score_topk_reference`` for B = 1.

    NumPy, because at 12,000 items half of the time would otherwise be the cost of calling some fifty torch operations.

    Args:
        z: float [1, d] on the CPU.
        table: [V, d] of the same dtype, V >= 1.
        k: at least 1.
        exclude: items to leave out.
        additive: sparse scores to add.
    """
    query, rows = z[0].numpy(), table.numpy()
    scores = rows.dot(query)
    extra = None
    if additive is not None and len(additive.indices):
        extra = np.bincount(additive.indices.numpy(), weights=additive.values.numpy(), minlength=len(rows))
        scores += extra.astype(scores.dtype)
    if exclude is not None:
        scores[exclude.indices.numpy()] = -np.inf
    lse = _log_sum_exp(scores)

    if k < len(scores):
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        slack = SLACK_EPSILONS * np.finfo(scores.dtype).eps * np.abs(scores.max())
        kept = np.flatnonzero((scores >= kth - slack) & (scores > -np.inf)) if np.isfinite(kth) else _eligible(scores)
    else:
        kept = _eligible(scores)
    # Scored again in float64 and rounded once, so that equal rows have equal scores wherever they stand.
    exact = (rows[kept].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    if extra is not None:
        exact += extra[kept]
    best = exact.astype(scores.dtype)
    order = np.argsort(-best, kind="stable")[:k]
    ids = torch.full((1, k), -1, dtype=torch.int64)
    values = torch.full((1, k), float("-inf"), dtype=z.dtype)
    ids[0, : len(order)] = torch.from_numpy(kept[order])
    values[0, : len(order)] = torch.from_numpy(best[order])
    return ids, values, torch.tensor([lse], dtype=z.dtype)


def _eligible(scores: np.ndarray) -> np.ndarray:
    return np.flatnonzero(scores > -np.inf)


def _log_sum_exp(scores: np.ndarray) -> float:
    maximum = scores.max()
    if maximum == -np.inf:
        return -np.inf
    return float(maximum + np.log(np.exp(scores - maximum).sum()))
