"""The last launch: each session's keys streamed once, the best kept; its log-sum-exp."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.score_topk.bitonic import keep_best, turned_round
from kernels.score_topk.keys import NOTHING, items_of, scores_of


@triton.jit  # type: ignore[untyped-decorator]
def _absorb(maximum: tl.tensor, total: tl.tensor, values: tl.tensor, weights: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Running maximum and sum of weight * exp(value - maximum), with one more block of values."""
    raised = tl.maximum(maximum, tl.max(values, axis=0))
    shift = tl.where(raised == float("-inf"), 0.0, raised)
    total = total * tl.exp(maximum - shift) + tl.sum(weights * tl.exp(values - shift), axis=0)
    return raised, total


@triton.jit  # type: ignore[untyped-decorator]
def _store_log_sum_exp(lse_ptr: tl.tensor, maximum: tl.tensor, total: tl.tensor) -> None:
    """maximum + log(total), -inf where nothing was summed."""
    logarithm = tl.log(tl.where(total == 0.0, 1.0, total))
    tl.store(lse_ptr, tl.where(total == 0.0, float("-inf"), maximum + logarithm))


@triton.jit(do_not_specialize=["keys_of_session", "k", "num_parts"])  # type: ignore[untyped-decorator]
def ranking_kernel(
    keys_ptr: tl.tensor,
    bounds_ptr: tl.tensor,
    scores_ptr: tl.tensor,
    part_maximum_ptr: tl.tensor,
    part_sum_ptr: tl.tensor,
    ids_ptr: tl.tensor,
    best_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    keys_of_session: tl.tensor,
    k: tl.tensor,
    num_parts: tl.tensor,
    KEEP: tl.constexpr,
    CHUNK: tl.constexpr,
    RAGGED: tl.constexpr,
) -> None:
    """ids int64 [B, k] and scores fp32 [B, k] of the k largest keys, -1 and -inf where there are fewer; lse fp32 [B].

    A chunk whose largest key is under the KEEP-th so far is skipped. Where RAGGED, the keys of session b are
    bounds[b]:bounds[b + 1] and the log-sum-exp is that of the scores beside them; otherwise each session has
    ``keys_of_session`` keys and the log-sum-exp is put together from the parts, [B, num_parts].
    """
    session = tl.program_id(0).to(tl.int64)
    if RAGGED:
        begin = tl.load(bounds_ptr + session)
        end = tl.load(bounds_ptr + session + 1)
    else:
        begin = session * keys_of_session
        end = begin + keys_of_session
    maximum = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    if not RAGGED:
        first = 0
        while first < num_parts:
            part = first + tl.arange(0, CHUNK)
            there = part < num_parts
            tops = tl.load(part_maximum_ptr + session * num_parts + part, mask=there, other=float("-inf"))
            sums = tl.load(part_sum_ptr + session * num_parts + part, mask=there, other=0.0)
            maximum, total = _absorb(maximum, total, tops, sums)
            first += CHUNK
        _store_log_sum_exp(lse_ptr + session, maximum, total)
    best = tl.full([KEEP], NOTHING, tl.int64)
    at = begin
    while at < end:
        place = at + tl.arange(0, CHUNK)
        keys = tl.load(keys_ptr + place, mask=place < end, other=NOTHING)
        if tl.max(keys, axis=0) > tl.min(best, axis=0):
            best = keep_best(best, keys, KEEP)
        if RAGGED:
            scores = tl.load(scores_ptr + place, mask=place < end, other=float("-inf"))
            maximum, total = _absorb(maximum, total, scores, 1.0)
        at += CHUNK
    if RAGGED:
        _store_log_sum_exp(lse_ptr + session, maximum, total)

    best = turned_round(best, KEEP)
    rank = tl.arange(0, KEEP)
    ranked = best > NOTHING
    tl.store(ids_ptr + session * k + rank, tl.where(ranked, items_of(best), -1), mask=rank < k)
    tl.store(best_ptr + session * k + rank, tl.where(ranked, scores_of(best), float("-inf")), mask=rank < k)
