"""Softmax cross-entropy over a few candidates of each example instead of the whole catalogue."""

from __future__ import annotations

import torch
from torch import Tensor

import kernels


def candidate_cross_entropy(queries: Tensor, rows: Tensor, candidates: Tensor, scale: Tensor | float) -> Tensor:
    """mean_b log sum_c exp(scale <q_b, r_c>) - scale <q_b, r_target>, c over the candidates of b.

    With every item among the candidates this is kernels.catalogue_cross_entropy.

    Args:
        queries: q, float [B, d].
        rows: r, float [V, d].
        candidates: int64 [B, 1 + N], none twice in a row; the target stands first.
        scale: inverse temperature.

    Returns:
        float, 0-d.
    """
    chosen = kernels.item_rows(rows, candidates.flatten()).view(*candidates.shape, -1)
    logits = scale * torch.einsum("bd,bcd->bc", queries, chosen)
    return torch.nn.functional.cross_entropy(logits, torch.zeros_like(candidates[:, 0]))
