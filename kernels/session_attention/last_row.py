"""Attention of one query a session in Triton: the rows stream by once, softmax along them, no keys and no values."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from kernels.session_attention.forward import block_width, in_steps, step_of_product

COLUMNS = 16


@triton.jit  # type: ignore[untyped-decorator]
def column_bounds(
    offsets_ptr: tl.tensor, group: tl.tensor, num_sessions: tl.tensor, HEADS: tl.constexpr, COLUMNS: tl.constexpr
) -> tl.tensor:
    """First row of a group of sessions (int64); begin and end of the session of each column from there on (int32); its query.

    A column is one head of one session: queries are numbered session by session, a group has as many whole sessions as fit.
    """
    per_group: tl.constexpr = COLUMNS // HEADS
    place = tl.arange(0, COLUMNS)
    session = group * per_group + place // HEADS
    exists = (place < per_group * HEADS) & (session < num_sessions)
    first = tl.load(offsets_ptr + group * per_group)
    begin = tl.load(offsets_ptr + session, mask=exists, other=0)
    end = tl.load(offsets_ptr + session + 1, mask=exists, other=0)
    begin = tl.where(exists, begin - first, 0).to(tl.int32)
    end = tl.where(exists, end - first, 0).to(tl.int32)
    return first, begin, end, group * (per_group * HEADS) + place, exists


@triton.jit(do_not_specialize=["num_sessions"])  # type: ignore[untyped-decorator]
def last_row_fwd_kernel(
    rows_ptr: tl.tensor,
    offsets_ptr: tl.tensor,
    queries_ptr: tl.tensor,
    pooled_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    num_sessions: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HEADS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """p_c = sum_t softmax_t(<u_c, y_t>) y_t over the rows t of the session of column c; zeros for an empty session."""
    dtype = rows_ptr.dtype.element_ty
    group = tl.program_id(0).to(tl.int64)
    first, begin, end, query, exists = column_bounds(offsets_ptr, group, num_sessions, HEADS, COLUMNS)
    column = tl.arange(0, BLOCK_D)
    within = (column < D)[None, :]
    of_query = query[:, None] * D + column[None, :]
    queries = tl.load(queries_ptr + of_query, mask=exists[:, None] & within, other=0.0)

    largest = tl.full([COLUMNS], float("-inf"), dtype=WIDE)
    total = tl.zeros([COLUMNS], dtype=WIDE)
    pooled = tl.zeros([COLUMNS, BLOCK_D], dtype=WIDE)
    place = tl.arange(0, ROWS)
    of_row = place[:, None] * D + column[None, :]
    start = tl.zeros([], dtype=tl.int32)
    stop = tl.max(end, axis=0)
    while start < stop:
        row = start + place
        y = tl.load(rows_ptr + (first + start) * D + of_row, mask=(row < stop)[:, None] & within, other=0.0)
        scores = tl.dot(y, tl.trans(queries), input_precision=INPUT_PRECISION, out_dtype=WIDE)
        member = (row[:, None] >= begin[None, :]) & (row[:, None] < end[None, :])
        scores = tl.where(member, scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, axis=0))
        # A session may begin in a later tile, or have no row.
        finite = tl.where(larger == float("-inf"), 0.0, larger)
        shares = tl.exp(scores - finite[None, :])
        shrink = tl.exp(largest - finite)
        total = total * shrink + tl.sum(shares, axis=0)
        fresh = tl.dot(tl.trans(shares.to(dtype)), y, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        pooled = pooled * shrink[:, None] + fresh
        largest = larger
        start += ROWS

    filled = end > begin
    divisor = tl.where(filled, total, 1.0)
    tl.store(pooled_ptr + of_query, (pooled / divisor[:, None]).to(dtype), mask=exists[:, None] & within)
    tl.store(lse_ptr + query, tl.where(filled, largest + tl.log(divisor), 0.0), mask=exists)


@triton.jit(do_not_specialize=["num_sessions"])  # type: ignore[untyped-decorator]
def last_row_bwd_kernel(
    rows_ptr: tl.tensor,
    offsets_ptr: tl.tensor,
    queries_ptr: tl.tensor,
    pooled_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    grad_rows_ptr: tl.tensor,
    grad_queries_ptr: tl.tensor,
    num_sessions: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HEADS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """With the shares P_tc computed again and dS_tc = P_tc (<dp_c, y_t> - <dp_c, p_c>):

    dy_t = sum_c P_tc dp_c + dS_tc u_c    and    du_c = sum_t dS_tc y_t
    """
    dtype = rows_ptr.dtype.element_ty
    group = tl.program_id(0).to(tl.int64)
    first, begin, end, query, exists = column_bounds(offsets_ptr, group, num_sessions, HEADS, COLUMNS)
    column = tl.arange(0, BLOCK_D)
    within = (column < D)[None, :]
    of_query = query[:, None] * D + column[None, :]
    inside = exists[:, None] & within
    queries = tl.load(queries_ptr + of_query, mask=inside, other=0.0)
    grad = tl.load(grad_ptr + of_query, mask=inside, other=0.0)
    pooled = tl.load(pooled_ptr + of_query, mask=inside, other=0.0)
    inner = tl.sum(grad.to(WIDE) * pooled.to(WIDE), axis=1)
    lse = tl.load(lse_ptr + query, mask=exists, other=0.0)

    grad_queries = tl.zeros([COLUMNS, BLOCK_D], dtype=WIDE)
    place = tl.arange(0, ROWS)
    of_row = place[:, None] * D + column[None, :]
    start = tl.zeros([], dtype=tl.int32)
    stop = tl.max(end, axis=0)
    while start < stop:
        row = start + place
        row_inside = (row < stop)[:, None] & within
        y = tl.load(rows_ptr + (first + start) * D + of_row, mask=row_inside, other=0.0)
        row_ptr = rows_ptr + (first + start) * D + place * D
        if STEP == BLOCK_D:
            scores = tl.dot(y, tl.trans(queries), input_precision=INPUT_PRECISION, out_dtype=WIDE)
            along = tl.dot(y, tl.trans(grad), input_precision=INPUT_PRECISION, out_dtype=WIDE)
        else:
            scores = in_steps(row_ptr, row < stop, queries_ptr + query * D, exists, D, BLOCK_D, STEP, WIDE, INPUT_PRECISION)
            along = in_steps(row_ptr, row < stop, grad_ptr + query * D, exists, D, BLOCK_D, STEP, WIDE, INPUT_PRECISION)
        member = (row[:, None] >= begin[None, :]) & (row[:, None] < end[None, :])
        shares = tl.exp(tl.where(member, scores - lse[None, :], float("-inf")))
        grad_scores = (shares * (along - inner[None, :])).to(dtype)
        grad_y = tl.dot(shares.to(dtype), grad, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        grad_y += tl.dot(grad_scores, queries, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        tl.store(grad_rows_ptr + (first + start) * D + of_row, grad_y.to(dtype), mask=row_inside)
        grad_queries += tl.dot(tl.trans(grad_scores), y, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        start += ROWS
    tl.store(grad_queries_ptr + of_query, grad_queries.to(dtype), mask=inside)


def rows_at_once(dtype: torch.dtype) -> int:
    """Rows of a tile; float32 is multiplied in three parts."""
    return 64 if dtype.itemsize == 2 else 32


def warps_of(d: int) -> int:
    """Of a program; wide rows need the registers of eight."""
    return 8 if d > 64 else 4


def shape_of_launch(rows: torch.Tensor, queries: torch.Tensor) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and constants for rows [T, d] and queries [B, heads, d]."""
    sessions, heads, d = queries.shape
    double = rows.dtype == torch.float64
    constants = {
        "D": d,
        "BLOCK_D": block_width(d),
        "HEADS": heads,
        "COLUMNS": COLUMNS,
        "ROWS": rows_at_once(rows.dtype),
        "WIDE": tl.float64 if double else tl.float32,
        "INPUT_PRECISION": "tf32x3",
        "num_warps": warps_of(d),
    }
    return (triton.cdiv(sessions, COLUMNS // heads),), constants


def launch_forward(rows: torch.Tensor, offsets: torch.Tensor, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """p, [B, heads, d], and log-sum-exps, [B, heads], of rows [T, d] and queries u, [B, heads, d]; all contiguous."""
    sessions, heads, _ = queries.shape
    pooled = torch.empty_like(queries)
    wide = torch.promote_types(rows.dtype, torch.float32)
    lse = torch.empty(sessions, heads, dtype=wide, device=rows.device)
    grid, constants = shape_of_launch(rows, queries)
    if sessions:
        with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]
            last_row_fwd_kernel[grid](rows, offsets, queries, pooled, lse, sessions, **constants)
    return pooled, lse


def launch_backward(
    grad: torch.Tensor,
    rows: torch.Tensor,
    offsets: torch.Tensor,
    queries: torch.Tensor,
    pooled: torch.Tensor,
    lse: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the rows and of the queries from that of p; all contiguous."""
    grad_rows, grad_queries = torch.empty_like(rows), torch.empty_like(queries)
    grid, constants = shape_of_launch(rows, queries)
    if len(queries):
        with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]
            last_row_bwd_kernel[grid](
                rows,
                offsets,
                queries,
                pooled,
                lse,
                grad,
                grad_rows,
                grad_queries,
                len(queries),
                STEP=step_of_product(rows.dtype, rows.shape[1]),
                **constants,
            )
    return grad_rows, grad_queries
