"""Scoring with top-k as its definition reads."""

from __future__ import annotations

import torch

from kernels.score_topk.ragged import RaggedItems, RaggedScores


def score_topk_reference(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude: RaggedItems | None = None,
    candidates: RaggedItems | None = None,
    additive: RaggedScores | None = None,
    rankable: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All scores, session by session, in float32 (float64 if an input is).

    score_bv = <z_b, t_v> + sum of b's additive values of v, which are finite
    eligible: rankable at all, among b's candidates (if given) and not excluded
    order: score falling, then item index rising
    lse_b = log sum over eligible v of exp(score_bv)
    """
    dtype = torch.promote_types(torch.promote_types(z.dtype, table.dtype), torch.float32)
    z, table = z.to(dtype), table.to(dtype)
    ids = torch.full((len(z), k), -1, dtype=torch.int64, device=z.device)
    scores = torch.full((len(z), k), float("-inf"), dtype=z.dtype, device=z.device)
    lse = torch.full((len(z),), float("-inf"), dtype=z.dtype, device=z.device)
    for b in range(len(z)):
        row = table @ z[b]
        if additive is not None:
            begin, end = additive.offsets[b : b + 2].tolist()
            row = row.index_add(0, additive.indices[begin:end], additive.values[begin:end].to(row))
        eligible = torch.full((len(table),), candidates is None, device=z.device)
        if candidates is not None:
            begin, end = candidates.offsets[b : b + 2].tolist()
            eligible[candidates.indices[begin:end]] = True
        if exclude is not None:
            begin, end = exclude.offsets[b : b + 2].tolist()
            eligible[exclude.indices[begin:end]] = False
        if rankable is not None:
            eligible &= rankable
        items = torch.nonzero(eligible).squeeze(1)
        if len(items) == 0:
            continue
        lse[b] = torch.logsumexp(row[items], dim=0)
        order = torch.argsort(row[items], descending=True, stable=True)[:k]
        ids[b, : len(order)] = items[order]
        scores[b, : len(order)] = row[items][order]
    return ids, scores, lse
