"""Cross-entropy over the whole catalogue as its formula reads."""

from __future__ import annotations

import torch
from torch.nn import functional

NORM_EPSILON = 1e-12


def catalogue_cross_entropy_reference(
    z: torch.Tensor,
    table: torch.Tensor,
    target: torch.Tensor,
    scale: float | torch.Tensor = 1.0,
    cosine: bool = False,
    reduction: str = "mean",
) -> torch.Tensor:
    """loss_b = log sum_v exp(s <z_b, t_v>) - s <z_b, t_target>; with ``cosine`` z and t are divided by their norms first."""
    if cosine:
        z, table = _directions(z), _directions(table)
    return functional.cross_entropy(scale * (z @ table.T), target, reduction=reduction)


def _directions(rows: torch.Tensor) -> torch.Tensor:
    norm = torch.linalg.vector_norm(rows.detach(), dim=1, keepdim=True)
    safe = torch.where(norm > NORM_EPSILON, rows, torch.ones_like(rows))
    return torch.where(norm > NORM_EPSILON, functional.normalize(safe, dim=1), torch.zeros_like(rows))
