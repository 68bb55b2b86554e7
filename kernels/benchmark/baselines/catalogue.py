"""Scoring and cross-entropy over the catalogue as others run them: with all B x V scores in memory."""

from __future__ import annotations

import torch
from torch.nn import functional


def matmul_topk(z: torch.Tensor, table: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, scores), each [B, k]."""
    scores, ids = torch.topk(z @ table.T, k, dim=1)
    return ids, scores


def matmul_topk_logsumexp(z: torch.Tensor, table: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, scores, lse): what ``score_topk`` returns, but for the order of equal scores."""
    logits = z @ table.T
    scores, ids = torch.topk(logits, k, dim=1)
    return ids, scores, torch.logsumexp(logits, dim=1)


def unfolded_matmul_topk(
    z: torch.Tensor, rows: torch.Tensor, projection: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Session vectors moved by W_p [D, d] to the items' own space, whose rows are D wide: the table is not folded."""
    return matmul_topk(functional.linear(z, projection), rows, k)


def full_logits_cross_entropy(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, scale: float) -> torch.Tensor:
    """Cosine logits [B, V], temperature, softmax cross-entropy in float32."""
    logits = scale * (functional.normalize(z, dim=1) @ functional.normalize(table, dim=1).T)
    return functional.cross_entropy(logits.float(), target)


def full_scores_rank(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """int64 [B], one more than the number of items that score above the target."""
    scores = z @ table.T
    return (scores > scores.gather(1, target[:, None])).sum(dim=1) + 1
