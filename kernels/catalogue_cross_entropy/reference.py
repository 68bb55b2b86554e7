"""Cross-entropy over the whole catalogue as its formula reads."""

from __future__ import annotations

import torch
from torch.nn import functional


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
        z, table = functional.normalize(z, dim=1), functional.normalize(table, dim=1)
    return functional.cross_entropy(scale * (z @ table.T), target, reduction=reduction)
