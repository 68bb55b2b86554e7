"""Softmax attention inside sessions in Triton: tiles of rows, whatever sessions they belong to, online softmax."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def row_bounds(
    begins_ptr: tl.tensor, ends_ptr: tl.tensor, first: tl.tensor, num_rows: tl.tensor, ROWS: tl.constexpr
) -> tl.tensor:
    """Begin and end of the session of each row of a tile, counted from the tile's first row (int32); 0, 0 past the last row."""
    place = tl.arange(0, ROWS)
    present = first + place < num_rows
    begin = tl.load(begins_ptr + first + place, mask=present, other=0)
    end = tl.load(ends_ptr + first + place, mask=present, other=0)
    return tl.where(present, begin - first, 0).to(tl.int32), tl.where(present, end - first, 0).to(tl.int32)


@triton.jit  # type: ignore[untyped-decorator]
def in_steps(
    rows_ptr: tl.tensor,
    row_there: tl.tensor,
    others_ptr: tl.tensor,
    other_there: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK_W: tl.constexpr,
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> tl.tensor:
    """Products of the rows at ``rows_ptr`` [R] with those at ``others_ptr`` [O], [R, O]: STEP columns at a time, so that wide
    factors are never whole in the registers of every warp."""
    total = tl.zeros([rows_ptr.shape[0], others_ptr.shape[0]], dtype=WIDE)
    for start in range(0, BLOCK_W, STEP):
        column = start + tl.arange(0, STEP)
        within = column < WIDTH
        rows = tl.load(rows_ptr[:, None] + column[None, :], mask=row_there[:, None] & within[None, :], other=0.0)
        others = tl.load(others_ptr[None, :] + column[:, None], mask=within[:, None] & other_there[None, :], other=0.0)
        total = tl.dot(rows, others, total, input_precision=INPUT_PRECISION, out_dtype=WIDE)
    return total


@triton.jit(do_not_specialize=["num_rows"])  # type: ignore[untyped-decorator]
def session_attention_fwd_kernel(
    projected_ptr: tl.tensor,
    begins_ptr: tl.tensor,
    ends_ptr: tl.tensor,
    attended_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    num_rows: tl.tensor,
    scale: tl.tensor,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_W: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    CAUSAL: tl.constexpr,
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """A = softmax(Q K^T / sqrt(width)) V of one tile of queries and one head.

    The keys run from the begin of the session of the tile's first row to the end of that of its last row: short sessions share
    a tile, a long one is spread over many programs. The log-sum-exp of each row's scores is left for the backward pass.
    """
    dtype = projected_ptr.dtype.element_ty
    first = tl.program_id(0).to(tl.int64) * ROWS
    head = tl.program_id(1)
    begin, end = row_bounds(begins_ptr, ends_ptr, first, num_rows, ROWS)
    place = tl.arange(0, ROWS)
    present = first + place < num_rows
    column = tl.arange(0, BLOCK_W)
    within = (column < WIDTH)[None, :]
    projected_ptr += head * WIDTH
    of_row = place[:, None] * (3 * D) + column[None, :]
    queries_ptr = projected_ptr + first * (3 * D)
    if STEP == BLOCK_W:
        query = tl.load(queries_ptr + of_row, mask=present[:, None] & within, other=0.0)
    query_ptr = queries_ptr + place * (3 * D)

    largest = tl.full([ROWS], float("-inf"), dtype=WIDE)
    total = tl.zeros([ROWS], dtype=WIDE)
    attended = tl.zeros([ROWS, BLOCK_W], dtype=WIDE)
    key_place = tl.arange(0, KEYS)
    of_key = key_place[:, None] * (3 * D) + column[None, :]
    start = tl.min(begin, axis=0)
    stop = tl.max(end, axis=0)
    if CAUSAL:
        stop = tl.minimum(stop, ROWS)
    while start < stop:
        key = start + key_place
        inside = (key < stop)[:, None] & within
        keys_ptr = projected_ptr + (first + start) * (3 * D) + D
        values = tl.load(keys_ptr + D + of_key, mask=inside, other=0.0)
        if STEP == BLOCK_W:
            keys = tl.load(keys_ptr + of_key, mask=inside, other=0.0)
            scores = tl.dot(query, tl.trans(keys), input_precision=INPUT_PRECISION, out_dtype=WIDE) * scale
        else:
            key_ptr = keys_ptr + key_place * (3 * D)
            scores = in_steps(query_ptr, present, key_ptr, key < stop, WIDTH, BLOCK_W, STEP, WIDE, INPUT_PRECISION) * scale
        visible = (key[None, :] >= begin[:, None]) & (key[None, :] < end[:, None])
        if CAUSAL:
            visible = visible & (key[None, :] <= place[:, None])
        scores = tl.where(visible, scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, axis=1))
        # A row whose session begins in a later block of keys has seen nothing yet.
        finite = tl.where(larger == float("-inf"), 0.0, larger)
        shares = tl.exp(scores - finite[:, None])
        shrink = tl.exp(largest - finite)
        total = total * shrink + tl.sum(shares, axis=1)
        fresh = tl.dot(shares.to(dtype), values, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        attended = attended * shrink[:, None] + fresh
        largest = larger
        start += KEYS

    attended /= tl.where(present, total, 1.0)[:, None]
    out = attended_ptr + first * D + head * WIDTH + place[:, None] * D + column[None, :]
    tl.store(out, attended.to(dtype), mask=present[:, None] & within)
    lse = largest + tl.log(tl.where(present, total, 1.0))
    tl.store(lse_ptr + head.to(tl.int64) * num_rows + first + place, lse, mask=present)


def block_width(width: int) -> int:
    """Columns of a tile: the power of two that holds a head, at least what a product needs."""
    return max(16, int(triton.next_power_of_2(width)))


def shape_of_program(dtype: torch.dtype, width: int) -> tuple[int, int, int]:
    """Rows of a tile, rows it is compared with at once, and warps; float32 is multiplied in three parts."""
    if dtype.itemsize == 2:
        return (32 if width > 64 else 64), 32, 4
    return 16, 16, 4


def step_of_product(dtype: torch.dtype, width: int) -> int:
    """Columns of a product that are taken at a time: all, where their registers are there."""
    return 16 if width > 64 and dtype.itemsize > 2 else block_width(width)


def launch(
    projected: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor, num_heads: int, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attended rows, [T, d], and log-sum-exps, [heads, T], of queries, keys and values [T, 3d] with int64 [T] bounds."""
    rows, d = len(projected), projected.shape[1] // 3
    wide = torch.promote_types(projected.dtype, torch.float32)
    attended = torch.empty(rows, d, dtype=projected.dtype, device=projected.device)
    lse = torch.empty(num_heads, rows, dtype=wide, device=projected.device)
    width = d // num_heads
    size, keys, warps = shape_of_program(projected.dtype, width)
    if rows:
        with torch.cuda.device_of(projected):  # type: ignore[no-untyped-call]
            session_attention_fwd_kernel[(triton.cdiv(rows, size), num_heads)](
                projected,
                begins,
                ends,
                attended,
                lse,
                rows,
                width**-0.5,
                D=d,
                WIDTH=width,
                BLOCK_W=block_width(width),
                ROWS=size,
                KEYS=keys,
                CAUSAL=causal,
                STEP=step_of_product(projected.dtype, width),
                WIDE=tl.float64 if wide == torch.float64 else tl.float32,
                INPUT_PRECISION="tf32x3",
                num_warps=warps,
            )
    return attended, lse
