"""Transitions lent between items whose texts are close, so that rarely clicked items have some too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from kernels import RaggedItems, score_topk
from llmgr_core.transitions.graph import TransitionGraph

if TYPE_CHECKING:
    from scipy.sparse import csr_array

ROWS_AT_ONCE = 1024
SMALLEST_NORM = 1e-6


def smooth_by_text(graph: TransitionGraph, vectors: npt.NDArray[np.float32], clicks: npt.NDArray[np.int64]) -> TransitionGraph:
    """The graph with what the text neighbours of its items know, pruned to the heaviest edges.

        W'[a, v] = W[a, v] + alpha g(v) sum_u S[v, u] W[a, u] + beta sum_u S[a, u] W[u, v]
        g(v)     = h / (h + clicks(v))

    S[v, u] is cos(u_v, u_u)^sharpness over the nearest items of v by text, each row divided by its sum: the second term says
    that what leads to items like v leads to v, the more so the rarer v was clicked; the third, that what items like a lead to,
    a leads to as well. Items without text or without a training click neither lend nor borrow, and no item leads to itself.

    Args:
        graph: the pruned one; sharing the heaviest edges alone ranks better on validation than sharing every edge. Its settings
            hold alpha (``text_targets``), beta (``text_sources``), h (``text_halving``) and the rest.
        vectors: float32 [V, r], whitened text vectors; zeros where there is no text.
        clicks: int64 [V], training clicks.

    Returns:
        A graph of the same form: serving does not know the difference.
    """
    from scipy.sparse import csr_array

    settings = graph.settings
    num_items = graph.num_items
    lending = np.flatnonzero((clicks > 0) & (np.abs(vectors).sum(axis=1) > 0))
    shares = _shares(vectors, lending, num_items, settings.text_neighbours, settings.text_sharpness)
    edges = csr_array((graph.weights, graph.neighbours, graph.indptr), shape=(num_items, num_items))
    rarity = (settings.text_halving / (settings.text_halving + clicks)).astype(np.float32)
    to_neighbours = shares.T.tocsr().multiply(settings.text_targets * rarity[None, :]).tocsr()
    from_neighbours = shares * np.float32(settings.text_sources)
    counts, neighbours, weights = [], [], []
    for start in range(0, num_items, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        smoothed = (edges[rows] + edges[rows] @ to_neighbours + from_neighbours[rows] @ edges).tocsr()
        length, column, weight = _heaviest(smoothed, start, settings.text_kept)
        counts.append(length)
        neighbours.append(column)
        weights.append(weight)
    indptr = np.zeros(num_items + 1, dtype=np.int64)
    np.cumsum(np.concatenate(counts), out=indptr[1:])
    return TransitionGraph(settings, indptr, np.concatenate(neighbours), np.concatenate(weights))


def _shares(
    vectors: npt.NDArray[np.float32], lending: npt.NDArray[np.int64], num_items: int, count: int, sharpness: float
) -> csr_array:
    """S [V, V], each row of a lending item adding up to 1 (or empty, where no other text points its way)."""
    from scipy.sparse import csr_array

    table = torch.from_numpy(vectors[lending])
    table = table / table.norm(dim=1, keepdim=True).clamp_min(SMALLEST_NORM)
    sources, targets, values = [], [], []
    for start in range(0, len(lending), ROWS_AT_ONCE):
        block = table[start : start + ROWS_AT_ONCE]
        itself = RaggedItems(torch.arange(start, start + len(block)), torch.arange(len(block) + 1))
        ids, cosines, _ = score_topk(block, table, count, exclude=itself)
        near = ((ids >= 0) & (cosines > 0)).numpy()
        sources.append(np.repeat(lending[start : start + len(block)], near.sum(axis=1)))
        targets.append(lending[ids.numpy()[near]])
        values.append(cosines.numpy()[near] ** np.float32(sharpness))
    nothing = np.zeros(0, dtype=np.int64)
    source, target = np.concatenate([nothing, *sources]), np.concatenate([nothing, *targets])
    value = np.concatenate([np.zeros(0, dtype=np.float32), *values])
    total = np.bincount(source, weights=value, minlength=num_items)
    value = (value / np.maximum(total[source], np.finfo(np.float32).tiny)).astype(np.float32)
    return csr_array((value, (source, target)), shape=(num_items, num_items))


def _heaviest(
    rows: csr_array, first: int, limit: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Edges a row, their targets in ascending order and weights; ties go to the lower item index, loops are left out."""
    source = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    kept = np.flatnonzero((rows.indices != source + first) & (rows.data > 0))
    source, target, weight = source[kept], rows.indices[kept], rows.data[kept]
    order = np.lexsort((target, -weight, source))
    lengths = np.bincount(source, minlength=rows.shape[0])
    rank = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    chosen = order[rank < limit]
    chosen = chosen[np.lexsort((target[chosen], source[chosen]))]
    return np.minimum(lengths, limit), target[chosen].astype(np.int32), weight[chosen].astype(np.float32)
