"""Scoring with top-k: the catalogue streamed past slabs of sessions, or the candidates alone."""

from __future__ import annotations

import torch

from kernels.score_topk.catalogue_pass import SLAB_SESSIONS, Edits, catalogue_pass
from kernels.score_topk.exact_order import best_of_each, exact_scores
from kernels.score_topk.one_session import score_one_session
from kernels.score_topk.pairs import SparseScores, contained, pair_keys, sessions_of
from kernels.score_topk.ragged import RaggedItems, RaggedScores


def score_topk_torch(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude: RaggedItems | None = None,
    candidates: RaggedItems | None = None,
    additive: RaggedScores | None = None,
    rankable: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Same meaning as ``score_topk_reference``, in float32 (float64 if an input is)."""
    dtype = torch.promote_types(torch.promote_types(z.dtype, table.dtype), torch.float32)
    exclude = None if exclude is None else exclude.trimmed()
    candidates = None if candidates is None else candidates.trimmed()
    additive = None if additive is None else additive.trimmed()
    if candidates is not None:
        return _among_candidates(z, table, k, exclude, candidates, additive, rankable, dtype)
    if len(z) == 0 or len(table) == 0:
        ids = torch.full((len(z), k), -1, dtype=torch.int64, device=z.device)
        nothing = torch.full((len(z), k), float("-inf"), dtype=dtype, device=z.device)
        return ids, nothing, nothing[:, 0].clone()
    on_cpu = z.device.type == "cpu" and table.dtype == z.dtype == dtype
    if len(z) == 1 and on_cpu:
        return score_one_session(z, table, k, exclude, additive, rankable)
    sessions, items, lse = [], [], []
    for begin in range(0, len(z), SLAB_SESSIONS):
        slab = z[begin : begin + SLAB_SESSIONS].to(dtype)
        edits = _edits(additive, exclude, begin, len(slab))
        part = catalogue_pass(slab, table, min(k, len(table)), edits, rankable)
        sessions.append(part.session + begin if begin else part.session)
        items.append(part.item)
        lse.append(part.lse)
    session, item = torch.cat(sessions), torch.cat(items)
    sparse = None if additive is None else SparseScores(additive, len(table))
    scores = exact_scores(z, table, session, item, sparse, dtype)
    return *best_of_each(session, item, scores, len(z), k), torch.cat(lse)


def _edits(additive: RaggedScores | None, exclude: RaggedItems | None, begin: int, num_sessions: int) -> list[Edits]:
    """Additions, then exclusions, of a slab of sessions."""
    edits = []
    for ragged in (additive, exclude):
        if ragged is None or len(ragged.indices) == 0:
            continue
        offsets = ragged.offsets[begin : begin + num_sessions + 1]
        first, end = int(offsets[0]), int(offsets[-1])
        value = ragged.values[first:end] if isinstance(ragged, RaggedScores) else None
        edits.append(Edits(sessions_of(offsets, end - first), ragged.indices[first:end], value))
    return edits


def _among_candidates(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude: RaggedItems | None,
    candidates: RaggedItems,
    additive: RaggedScores | None,
    rankable: torch.Tensor | None,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Score the eligible candidates alone."""
    num_items = len(table)
    keys = torch.unique(pair_keys(candidates, num_items))
    if exclude is not None and len(exclude.indices):
        keys = keys[~contained(keys, torch.sort(pair_keys(exclude, num_items)).values)]
    if rankable is not None:
        keys = keys[rankable[keys % num_items]]
    session = torch.div(keys, max(1, num_items), rounding_mode="floor")
    item = keys - session * num_items
    sparse = None if additive is None else SparseScores(additive, num_items)
    scores = exact_scores(z, table, session, item, sparse, dtype)
    lse = torch.full((len(z),), float("-inf"), dtype=dtype, device=z.device)
    maximum = lse.scatter_reduce(0, session, scores, reduce="amax").nan_to_num(neginf=0.0)
    total = torch.zeros_like(lse).index_add_(0, session, (scores - maximum[session]).exp_())
    lse = total.log_() + maximum
    return *best_of_each(session, item, scores, len(z), k), lse
