"""Exact scores of the items that may be among the best: in float64, rounded once."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.score_topk.keys import as_keys


@triton.jit  # type: ignore[untyped-decorator]
def _exact_scores(
    z_ptr: tl.tensor,
    table_ptr: tl.tensor,
    session: tl.tensor,
    item: tl.tensor,
    valid: tl.tensor,
    exclude_items_ptr: tl.tensor,
    exclude_bounds_ptr: tl.tensor,
    additive_items_ptr: tl.tensor,
    additive_values_ptr: tl.tensor,
    additive_bounds_ptr: tl.tensor,
    rankable_ptr: tl.tensor,
    D: tl.constexpr,
    STEP_D: tl.constexpr,
    ITEMS: tl.constexpr,
    BATCH: tl.constexpr,
    HAS_EXCLUDE: tl.constexpr,
    HAS_ADDITIVE: tl.constexpr,
    HAS_RANKABLE: tl.constexpr,
) -> tl.tensor:
    """fp32 scores of a session's items, int64 [ITEMS]: <z, t_v> + additive_v in fp64, rounded once; -inf if not eligible."""
    score = tl.zeros([ITEMS], tl.float64)
    for start in range(0, D, STEP_D):
        column = start + tl.arange(0, STEP_D)
        query = tl.load(z_ptr + session * D + column, mask=column < D, other=0.0).to(tl.float64)
        cell = item[:, None] * D + column[None, :]
        rows = tl.load(table_ptr + cell, mask=valid[:, None] & (column < D)[None, :], other=0.0).to(tl.float64)
        score += tl.sum(rows * query[None, :], axis=1)
    if HAS_ADDITIVE:
        at = tl.load(additive_bounds_ptr + session)
        end = tl.load(additive_bounds_ptr + session + 1)
        while at < end:
            place = at + tl.arange(0, BATCH)
            which = tl.load(additive_items_ptr + place, mask=place < end, other=-1)
            value = tl.load(additive_values_ptr + place, mask=place < end, other=0.0).to(tl.float64)
            score += tl.sum(tl.where(item[:, None] == which[None, :], value[None, :], 0.0), axis=1)
            at += BATCH
    if HAS_EXCLUDE:
        at = tl.load(exclude_bounds_ptr + session)
        end = tl.load(exclude_bounds_ptr + session + 1)
        while at < end:
            place = at + tl.arange(0, BATCH)
            which = tl.load(exclude_items_ptr + place, mask=place < end, other=-1)
            valid &= tl.sum((item[:, None] == which[None, :]).to(tl.int32), axis=1) == 0
            at += BATCH
    if HAS_RANKABLE:
        valid &= tl.load(rankable_ptr + item, mask=valid, other=0) != 0
    return tl.where(valid, score.to(tl.float32), float("-inf"))


@triton.jit(do_not_specialize=["num_items", "num_slots", "slots"])  # type: ignore[untyped-decorator]
def block_keys_kernel(
    z_ptr: tl.tensor,
    table_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    keys_ptr: tl.tensor,
    exclude_items_ptr: tl.tensor,
    exclude_bounds_ptr: tl.tensor,
    additive_items_ptr: tl.tensor,
    additive_values_ptr: tl.tensor,
    additive_bounds_ptr: tl.tensor,
    rankable_ptr: tl.tensor,
    num_items: tl.tensor,
    num_slots: tl.tensor,
    slots: tl.tensor,
    BLOCK_V: tl.constexpr,
    D: tl.constexpr,
    STEP_D: tl.constexpr,
    ITEMS: tl.constexpr,
    BATCH: tl.constexpr,
    HAS_EXCLUDE: tl.constexpr,
    HAS_ADDITIVE: tl.constexpr,
    HAS_RANKABLE: tl.constexpr,
) -> None:
    """Keys of all items in ITEMS // BLOCK_V of a session's selected blocks: int64 [B, num_slots * BLOCK_V].

    Only the first ``num_slots`` of the [B, slots] blocks count.
    """
    session = tl.program_id(0).to(tl.int64)
    slot = tl.program_id(1) * (ITEMS // BLOCK_V) + tl.arange(0, ITEMS // BLOCK_V)
    block = tl.load(blocks_ptr + session * slots + slot, mask=slot < num_slots, other=-1)
    item = tl.reshape(block[:, None] * BLOCK_V + tl.arange(0, BLOCK_V)[None, :], [ITEMS])
    scores = _exact_scores(
        z_ptr,
        table_ptr,
        session,
        item,
        (item >= 0) & (item < num_items),
        exclude_items_ptr,
        exclude_bounds_ptr,
        additive_items_ptr,
        additive_values_ptr,
        additive_bounds_ptr,
        rankable_ptr,
        D,
        STEP_D,
        ITEMS,
        BATCH,
        HAS_EXCLUDE,
        HAS_ADDITIVE,
        HAS_RANKABLE,
    )
    place = tl.program_id(1) * ITEMS + tl.arange(0, ITEMS)
    tl.store(keys_ptr + session * num_slots * BLOCK_V + place, as_keys(scores, item), mask=place < num_slots * BLOCK_V)


@triton.jit(do_not_specialize=["num_items", "num_parts"])  # type: ignore[untyped-decorator]
def candidate_keys_kernel(
    z_ptr: tl.tensor,
    table_ptr: tl.tensor,
    candidate_items_ptr: tl.tensor,
    candidate_bounds_ptr: tl.tensor,
    keys_ptr: tl.tensor,
    scores_ptr: tl.tensor,
    exclude_items_ptr: tl.tensor,
    exclude_bounds_ptr: tl.tensor,
    additive_items_ptr: tl.tensor,
    additive_values_ptr: tl.tensor,
    additive_bounds_ptr: tl.tensor,
    rankable_ptr: tl.tensor,
    num_items: tl.tensor,
    num_parts: tl.tensor,
    D: tl.constexpr,
    STEP_D: tl.constexpr,
    ITEMS: tl.constexpr,
    BATCH: tl.constexpr,
    HAS_EXCLUDE: tl.constexpr,
    HAS_ADDITIVE: tl.constexpr,
    HAS_RANKABLE: tl.constexpr,
) -> None:
    """Keys int64 [M] and scores fp32 [M] of a session's candidates, which stand in rising order; a repeated one counts once."""
    session = tl.program_id(0).to(tl.int64)
    begin = tl.load(candidate_bounds_ptr + session)
    end = tl.load(candidate_bounds_ptr + session + 1)
    at = begin + tl.program_id(1).to(tl.int64) * ITEMS
    while at < end:
        place = at + tl.arange(0, ITEMS)
        there = place < end
        item = tl.load(candidate_items_ptr + place, mask=there, other=-1)
        before = tl.load(candidate_items_ptr + place - 1, mask=there & (place > begin), other=-1)
        scores = _exact_scores(
            z_ptr,
            table_ptr,
            session,
            item,
            (item >= 0) & (item < num_items) & (item != before),
            exclude_items_ptr,
            exclude_bounds_ptr,
            additive_items_ptr,
            additive_values_ptr,
            additive_bounds_ptr,
            rankable_ptr,
            D,
            STEP_D,
            ITEMS,
            BATCH,
            HAS_EXCLUDE,
            HAS_ADDITIVE,
            HAS_RANKABLE,
        )
        tl.store(keys_ptr + place, as_keys(scores, item), mask=there)
        tl.store(scores_ptr + place, scores, mask=there)
        at += num_parts * ITEMS
