"""The catalogue streamed past the sessions: the best score of each block of items, and the log-sum-exp in parts."""

from __future__ import annotations

import triton
import triton.language as tl

EXCLUDED = tl.constexpr(-1e30)
EXCLUDED_FROM = tl.constexpr(-1e29)
# Sign, exponent and the ten leading bits of an fp32 number.
TF32_BITS = tl.constexpr(-8192)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit  # type: ignore[untyped-decorator]
def _add_edits(
    changes: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    row_begin: tl.tensor,
    row_end: tl.tensor,
    first_session: tl.tensor,
    first_item: tl.tensor,
    items_ptr: tl.tensor,
    values_ptr: tl.tensor,
    sessions_ptr: tl.tensor,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BATCH: tl.constexpr,
    SORTED: tl.constexpr,
    HAS_VALUES: tl.constexpr,
) -> tl.tensor:
    """Add to the changes of a tile, [BLOCK_B, BLOCK_V], the edits begin:end, BATCH at a time.

    Each batch is a product of two one-hot matrices, (row of the edit) x value and (column of the edit), so that edits of one
    item add up without atomics. Edits of other tiles have an empty row or column. Values go in as two parts that tf32 holds.
    """
    row = tl.arange(0, BLOCK_B)
    column = tl.arange(0, BLOCK_V)
    at = begin
    while at < end:
        place = at + tl.arange(0, BATCH)
        there = place < end
        item = tl.load(items_ptr + place, mask=there, other=-1)
        if HAS_VALUES:
            value = tl.load(values_ptr + place, mask=there, other=0.0).to(tl.float32)
        else:
            value = tl.full([BATCH], EXCLUDED, tl.float32)
        if SORTED:
            session = tl.load(sessions_ptr + place, mask=there, other=-1)
            mine = (session - first_session)[None, :] == row[:, None]
        else:
            mine = (place[None, :] >= row_begin[:, None]) & (place[None, :] < row_end[:, None])
        mine &= there[None, :]
        columns = ((item - first_item)[:, None] == column[None, :]).to(tl.float32)
        leading = (value.to(tl.int32, bitcast=True) & TF32_BITS).to(tl.float32, bitcast=True)
        changes = tl.dot(tl.where(mine, leading[None, :], 0.0), columns, changes, input_precision="tf32")
        changes = tl.dot(tl.where(mine, (value - leading)[None, :], 0.0), columns, changes, input_precision="tf32")
        at += BATCH
    return changes


@triton.jit(do_not_specialize=["num_sessions", "num_items", "num_parts"])  # type: ignore[untyped-decorator]
def block_maxima_kernel(
    z_ptr: tl.tensor,
    table_ptr: tl.tensor,
    maxima_ptr: tl.tensor,
    part_maximum_ptr: tl.tensor,
    part_sum_ptr: tl.tensor,
    exclude_items_ptr: tl.tensor,
    exclude_sessions_ptr: tl.tensor,
    exclude_bounds_ptr: tl.tensor,
    additive_items_ptr: tl.tensor,
    additive_values_ptr: tl.tensor,
    additive_sessions_ptr: tl.tensor,
    additive_bounds_ptr: tl.tensor,
    rankable_ptr: tl.tensor,
    num_sessions: tl.tensor,
    num_items: tl.tensor,
    num_parts: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BATCH: tl.constexpr,
    HAS_EXCLUDE: tl.constexpr,
    HAS_ADDITIVE: tl.constexpr,
    HAS_RANKABLE: tl.constexpr,
    SORTED: tl.constexpr,
    TILES: tl.constexpr,
) -> None:
    """One program: BLOCK_B sessions against a run of TILES tiles of BLOCK_V items.

        maxima[b, t] = max over eligible v in tile t of score_bv
        part_maximum[b, p], part_sum[b, p] = max, sum exp(score_bv - max) over part p

    Bounds of edits: int64 [B + 1] by session, or where SORTED int64 [row blocks x tiles + 1] by (row block, tile).
    """
    row_block = tl.program_id(0)
    part = tl.program_id(1)
    num_tiles = tl.cdiv(num_items, BLOCK_V)
    first_session = row_block.to(tl.int64) * BLOCK_B
    session = first_session + tl.arange(0, BLOCK_B)
    real = session < num_sessions
    column = tl.arange(0, BLOCK_D)
    inside = (column < D)[None, :]
    z = tl.load(z_ptr + session[:, None] * D + column[None, :], mask=real[:, None] & inside, other=0.0)

    exclude_begin = tl.zeros([BLOCK_B], tl.int64)
    exclude_end = exclude_begin
    additive_begin = exclude_begin
    additive_end = exclude_begin
    if HAS_EXCLUDE and not SORTED:
        exclude_begin = tl.load(exclude_bounds_ptr + session, mask=real, other=0)
        exclude_end = tl.load(exclude_bounds_ptr + session + 1, mask=real, other=0)
    if HAS_ADDITIVE and not SORTED:
        additive_begin = tl.load(additive_bounds_ptr + session, mask=real, other=0)
        additive_end = tl.load(additive_bounds_ptr + session + 1, mask=real, other=0)
    last_row = tl.minimum(first_session + BLOCK_B, num_sessions)

    maximum = tl.full([BLOCK_B], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_B], tl.float32)
    first_tile = part.to(tl.int64) * TILES
    for step in range(TILES):
        tile = first_tile + step
        first_item = tile * BLOCK_V
        item = first_item + tl.arange(0, BLOCK_V)
        known = item < num_items
        rows = tl.load(table_ptr + item[:, None] * D + column[None, :], mask=known[:, None] & inside, other=0.0)
        scores = tl.dot(z, tl.trans(rows.to(z.dtype)), input_precision="tf32x3")
        if HAS_EXCLUDE or HAS_ADDITIVE:
            changes = tl.zeros([BLOCK_B, BLOCK_V], tl.float32)
            # Behind the last tile there is nothing, and nothing to edit.
            group = tl.minimum(row_block.to(tl.int64) * num_tiles + tile, tl.num_programs(0) * num_tiles - 1)
            if HAS_EXCLUDE:
                if SORTED:
                    begin = tl.load(exclude_bounds_ptr + group)
                    end = tl.load(exclude_bounds_ptr + group + 1)
                else:
                    begin = tl.load(exclude_bounds_ptr + first_session)
                    end = tl.load(exclude_bounds_ptr + last_row)
                if begin < end:
                    changes = _add_edits(
                        changes,
                        begin,
                        end,
                        exclude_begin,
                        exclude_end,
                        first_session,
                        first_item,
                        exclude_items_ptr,
                        exclude_items_ptr,
                        exclude_sessions_ptr,
                        BLOCK_B,
                        BLOCK_V,
                        BATCH,
                        SORTED,
                        False,
                    )
            if HAS_ADDITIVE:
                if SORTED:
                    begin = tl.load(additive_bounds_ptr + group)
                    end = tl.load(additive_bounds_ptr + group + 1)
                else:
                    begin = tl.load(additive_bounds_ptr + first_session)
                    end = tl.load(additive_bounds_ptr + last_row)
                if begin < end:
                    changes = _add_edits(
                        changes,
                        begin,
                        end,
                        additive_begin,
                        additive_end,
                        first_session,
                        first_item,
                        additive_items_ptr,
                        additive_values_ptr,
                        additive_sessions_ptr,
                        BLOCK_B,
                        BLOCK_V,
                        BATCH,
                        SORTED,
                        True,
                    )
            scores = tl.where(changes <= EXCLUDED_FROM, float("-inf"), scores + changes)
        if HAS_RANKABLE:
            known &= tl.load(rankable_ptr + item, mask=known, other=0) != 0
        scores = tl.where(known[None, :], scores, float("-inf"))
        tops = tl.max(scores, axis=1)
        held = tl.where(tile < num_tiles, num_sessions, 0)
        tl.store(maxima_ptr + session * num_tiles + tile, tops, mask=session < held)
        raised = tl.maximum(maximum, tops)
        # A session with nothing eligible so far has no finite maximum to shift by.
        shift = tl.where(raised == float("-inf"), 0.0, raised) * LOG2_E
        total = total * tl.exp2(maximum * LOG2_E - shift) + tl.sum(tl.exp2(scores * LOG2_E - shift[:, None]), axis=1)
        maximum = raised
    tl.store(part_maximum_ptr + session * num_parts + part, maximum, mask=real)
    tl.store(part_sum_ptr + session * num_parts + part, total, mask=real)
