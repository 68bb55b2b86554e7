"""One session against a catalogue on a CPU: a request's scoring, at nearly the speed of a read of the table."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from kernels.score_topk.catalogue_pass import SLACK_EPSILONS
from kernels.score_topk.ragged import RaggedItems, RaggedScores

# Scores that stay in a core's cache between their passes.
CHUNK_ITEMS = 1 << 17
# From here on a second thread is worth its start.
ITEMS_PER_THREAD = 1 << 18
LONGEST_BLOCK = 64

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]


class _Part(NamedTuple):
    """Outcome for a run of items.

    Attributes:
        items: int64 [M], rising: all that can be among the k best, and a few more.
        values: float [M], their scores in the table's dtype.
        bounds: float [at most k], the largest block maxima.
        maximum, total: log-sum-exp of the run is ``maximum + log(total)``.
    """

    items: Indices
    values: Floats
    bounds: Floats
    maximum: float
    total: float


def score_one_session(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude: RaggedItems | None,
    additive: RaggedScores | None,
    rankable: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Same meaning as ``score_topk_reference`` for B = 1.

    NumPy, because a call of it costs a fraction of a call of torch. Scores are read four times, while they are in cache.

    Args:
        z: float [1, d] on the CPU.
        table: [V, d] of the same dtype, V >= 1.
        k: at least 1.
        exclude: items to leave out.
        additive: sparse scores to add.
        rankable: bool [V], items that may be ranked; None for all.
    """
    query, rows = z[0].numpy(), np.ascontiguousarray(table.numpy())
    extra_items, extra = _summed(additive)
    excluded = None if exclude is None else np.sort(exclude.indices.numpy())
    barred = None if rankable is None else ~rankable.numpy()
    threads = max(1, min(torch.get_num_threads(), len(rows) // ITEMS_PER_THREAD))
    edges = [len(rows) * thread // threads for thread in range(threads + 1)]

    def run(thread: int) -> _Part:
        return _pass(rows, query, edges[thread], edges[thread + 1], k, extra_items, extra, excluded, barred)

    if threads == 1:
        parts = [run(0)]
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(run, range(threads)))
    items = _joined(parts, k)
    # Scored again in float64 and rounded once, so that equal rows have equal scores wherever they stand.
    exact = (rows[items].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    if len(extra_items):
        place = np.minimum(np.searchsorted(extra_items, items), len(extra_items) - 1)
        exact += np.where(extra_items[place] == items, extra[place], 0.0)
    best = exact.astype(rows.dtype)
    order = np.argsort(-best, kind="stable")[:k]
    ids, values = np.full((1, k), -1, dtype=np.int64), np.full((1, k), -np.inf, dtype=rows.dtype)
    ids[0, : len(order)] = items[order]
    values[0, : len(order)] = best[order]
    lse = np.array([_log_sum_exp(parts)], dtype=rows.dtype)
    return torch.from_numpy(ids), torch.from_numpy(values), torch.from_numpy(lse)


def _pass(
    rows: Floats,
    query: Floats,
    first: int,
    end: int,
    k: int,
    extra_items: Indices,
    extra: npt.NDArray[np.float64],
    excluded: Indices | None,
    barred: npt.NDArray[np.bool_] | None,
) -> _Part:
    """Stream rows first:end. A block is a column of a chunk of scores, so that its maximum is found along whole rows."""
    width = min(CHUNK_ITEMS, end - first)
    block = next(size for size in (LONGEST_BLOCK, 16, 4, 1) if size == 1 or width >= 4 * k * size)
    width = -(-width // block) * block
    scores = np.empty(width, dtype=rows.dtype)
    columns = scores.reshape(block, -1)
    bounds = np.empty(0, dtype=rows.dtype)
    floor = _floor(bounds, k)
    maximum, total = -np.inf, 0.0
    kept: list[tuple[Indices, Floats]] = []
    for begin in range(first, end, width):
        stop = min(begin + width, end)
        known = scores[: stop - begin]
        if len(rows) <= CHUNK_ITEMS:
            rows.dot(query, out=known)
        else:
            # Row by row: as fast from memory as a matrix product, and without the threads of one, which wait by spinning.
            np.vecdot(rows[begin:stop], query, out=known)
        if stop - begin < width:
            scores[stop - begin :] = -np.inf
        if len(extra_items):
            chosen = slice(*np.searchsorted(extra_items, (begin, stop)))
            known[extra_items[chosen] - begin] += extra[chosen].astype(rows.dtype)
        if excluded is not None:
            chosen = slice(*np.searchsorted(excluded, (begin, stop)))
            known[excluded[chosen] - begin] = -np.inf
        if barred is not None:
            known[barred[begin:stop]] = -np.inf
        tops = columns.max(axis=0)
        column = np.flatnonzero(tops >= floor)
        if len(column):
            bounds = _largest(np.concatenate([bounds, tops[column]]), k)
            floor = _floor(bounds, k)
            column = column[tops[column] >= floor]
            looked_into = columns.take(column, axis=1).ravel()
            place = np.flatnonzero(looked_into >= floor)
            line, which = np.divmod(place, len(column))
            kept.append((line * columns.shape[1] + column[which] + begin, looked_into[place]))

        raised = max(float(tops.max()), maximum)
        if raised != -np.inf:
            np.subtract(scores, rows.dtype.type(raised), out=scores)
            np.exp(scores, out=scores)
            total = total * math.exp(maximum - raised) + float(scores.sum())
            maximum = raised
    if not kept:
        return _Part(np.empty(0, dtype=np.int64), bounds, bounds, maximum, total)
    items, values = kept[0] if len(kept) == 1 else (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return _Part(items, values, bounds, maximum, total)


def _joined(parts: list[_Part], k: int) -> Indices:
    """Items of all parts that reach the k-th largest block maximum of all, rising."""
    if len(parts) == 1:
        bounds, items, values = parts[0].bounds, parts[0].items, parts[0].values
    else:
        bounds = _largest(np.concatenate([part.bounds for part in parts]), k)
        items = np.concatenate([part.items for part in parts])
        values = np.concatenate([part.values for part in parts])
    return np.sort(items[values >= _floor(bounds, k)])


def _largest(values: Floats, k: int) -> Floats:
    return values if len(values) <= k else np.partition(values, len(values) - k)[len(values) - k :]


def _floor(bounds: Floats, k: int) -> float:
    """The score from which on an item may be among the best; never -inf, since what is taken out stays out."""
    limits = np.finfo(bounds.dtype)
    lowest = float(limits.min)
    if len(bounds) < k:
        return lowest
    floor = float(bounds.min()) - SLACK_EPSILONS * float(limits.eps) * abs(float(bounds.max()))
    return floor if floor > lowest else lowest


def _summed(additive: RaggedScores | None) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Distinct items, rising, and the sum of each one's values."""
    if additive is None or len(additive.indices) == 0:
        return np.empty(0, dtype=np.int64), np.empty(0)
    items, group = np.unique_inverse(additive.indices.numpy())
    return items, np.bincount(group, weights=additive.values.numpy(), minlength=len(items)).astype(np.float64, copy=False)


def _log_sum_exp(parts: list[_Part]) -> float:
    maximum = max(part.maximum for part in parts)
    if maximum == -np.inf:
        return -np.inf
    total = sum(part.total * np.exp(part.maximum - maximum) for part in parts)
    return float(maximum + np.log(total))
