"""Ranks of the targets from the scores of a few sessions at a time."""

from __future__ import annotations

import torch

from kernels.target_rank.reference import NORM_EPSILON

# Scores held at a time: 4 MB of float32.
CHUNK_SCORES = 1 << 20


def target_rank_torch(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, cosine: bool = False) -> torch.Tensor:
    """Same meaning as ``target_rank_reference``; half-precision inputs are computed in float32."""
    wide = torch.promote_types(z.dtype, torch.float32)
    ranks = torch.empty_like(target)
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        z, table = z.to(wide), table.to(wide)
        if cosine:
            norm = torch.linalg.vector_norm(table, dim=1, keepdim=True)
            table = table * torch.where(norm > NORM_EPSILON, norm.reciprocal(), 0.0)
        height = max(1, CHUNK_SCORES // max(1, len(table)))
        for begin in range(0, len(z), height):
            rows = slice(begin, begin + height)
            scores = z[rows] @ table.T
            ranks[rows] = 1 + (scores > scores.gather(1, target[rows, None])).sum(dim=1)
    return ranks
