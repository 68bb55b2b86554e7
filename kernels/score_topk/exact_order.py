"""Exact scores of a few (session, item) pairs, and their order."""

from __future__ import annotations

import torch

from kernels.score_topk.pairs import SparseScores

PAIRS_AT_A_TIME = 1 << 12


def exact_scores(
    z: torch.Tensor,
    table: torch.Tensor,
    session: torch.Tensor,
    item: torch.Tensor,
    additive: SparseScores | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Score each pair in float64 and round once, so that equal rows of the table get equal scores wherever they stand.

    Args:
        z: float [B, d].
        table: float [V, d].
        session: int64 [M].
        item: int64 [M].
        additive: sparse scores to add.
        dtype: of the result.

    Returns:
        [M].
    """
    parts = []
    for begin in range(0, len(item), PAIRS_AT_A_TIME):
        pairs = slice(begin, begin + PAIRS_AT_A_TIME)
        rows = table.index_select(0, item[pairs]).to(torch.float64)
        queries = z.to(torch.float64) if len(z) == 1 else z.index_select(0, session[pairs]).to(torch.float64)
        parts.append((rows * queries).sum(dim=1))
    if not parts:
        return z.new_empty(0, dtype=dtype)
    scores = torch.cat(parts) if len(parts) > 1 else parts[0]
    if additive is not None:
        scores += additive.at(session * len(table) + item)
    return scores.to(dtype)


def best_of_each(
    session: torch.Tensor, item: torch.Tensor, scores: torch.Tensor, num_sessions: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best pairs of each session, ties by rising item.

    Args:
        session: int64 [M].
        item: int64 [M]; those of one session stand in rising order, though not necessarily together.
        scores: float [M].
        num_sessions: B.
        k: how many.

    Returns:
        (items int64 [B, k], scores [B, k]); -1 and -inf where a session has fewer pairs.
    """
    ids = torch.full((num_sessions, k), -1, dtype=torch.int64, device=item.device)
    best = torch.full((num_sessions, k), float("-inf"), dtype=scores.dtype, device=item.device)
    order = torch.argsort(scores, descending=True, stable=True)
    if num_sessions == 1:
        order = order[:k]
        ids[0, : len(order)] = item[order]
        best[0, : len(order)] = scores[order]
        return ids, best
    order = order[torch.argsort(session[order], stable=True)]
    session = session[order]
    first = torch.searchsorted(session, torch.arange(num_sessions, device=session.device))
    rank = torch.arange(len(order), device=session.device) - first[session]
    kept = rank < k
    session, rank, order = session[kept], rank[kept], order[kept]
    ids[session, rank] = item[order]
    best[session, rank] = scores[order]
    return ids, best
