"""The rank of the target as its formula reads."""

from __future__ import annotations

import torch

NORM_EPSILON = 1e-12


def target_rank_reference(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, cosine: bool = False) -> torch.Tensor:
    """rank_b = 1 + |{v : <z_b, t_v> > <z_b, t_target(b)>}|; with ``cosine`` each t_v is divided by its norm first."""
    if cosine:
        norm = torch.linalg.vector_norm(table, dim=1, keepdim=True)
        table = torch.where(norm > NORM_EPSILON, table / norm, 0.0)
    scores = z @ table.T
    return 1 + (scores > scores.gather(1, target[:, None])).sum(dim=1)
