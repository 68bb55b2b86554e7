"""The gradients of attention inside sessions in Triton: one launch for the queries, one for keys and values, no atomics."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.session_attention.forward import block_width, in_steps, row_bounds, step_of_product


@triton.jit(do_not_specialize=["num_rows"])  # type: ignore[untyped-decorator]
def session_attention_bwd_queries_kernel(
    projected_ptr: tl.tensor,
    begins_ptr: tl.tensor,
    ends_ptr: tl.tensor,
    attended_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    inner_ptr: tl.tensor,
    grad_projected_ptr: tl.tensor,
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
    """dq_i = sum_j P_ij (<dA_i, v_j> - <dA_i, A_i>) k_j / sqrt(width) of one tile of queries and one head.

    P is computed again from the log-sum-exps; <dA_i, A_i> is left for the launch that follows.
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
    of_result = first * D + head * WIDTH + place[:, None] * D + column[None, :]
    row_inside = present[:, None] & within
    queries_ptr = projected_ptr + first * (3 * D)
    if STEP == BLOCK_W:
        query = tl.load(queries_ptr + of_row, mask=row_inside, other=0.0)
    query_ptr = queries_ptr + place * (3 * D)
    grad_row_ptr = grad_ptr + first * D + head * WIDTH + place * D
    grad = tl.load(grad_ptr + of_result, mask=row_inside, other=0.0)
    attended = tl.load(attended_ptr + of_result, mask=row_inside, other=0.0)
    inner = tl.sum(grad.to(WIDE) * attended.to(WIDE), axis=1)
    of_head = head.to(tl.int64) * num_rows + first
    tl.store(inner_ptr + of_head + place, inner, mask=present)
    lse = tl.load(lse_ptr + of_head + place, mask=present, other=0.0)

    grad_query = tl.zeros([ROWS, BLOCK_W], dtype=WIDE)
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
        keys = tl.load(keys_ptr + of_key, mask=inside, other=0.0)
        # Scores stand key by query: what stays in the loop is then the right factor, which the warps share out.
        if STEP == BLOCK_W:
            scores = tl.dot(keys, tl.trans(query), input_precision=INPUT_PRECISION, out_dtype=WIDE) * scale
        else:
            key_ptr = keys_ptr + key_place * (3 * D)
            scores = in_steps(key_ptr, key < stop, query_ptr, present, WIDTH, BLOCK_W, STEP, WIDE, INPUT_PRECISION) * scale
        visible = (key[:, None] >= begin[None, :]) & (key[:, None] < end[None, :])
        if CAUSAL:
            visible = visible & (key[:, None] <= place[None, :])
        shares = tl.exp(tl.where(visible, scores - lse[None, :], float("-inf")))
        if STEP == BLOCK_W:
            values = tl.load(keys_ptr + D + of_key, mask=inside, other=0.0)
            grad_shares = tl.dot(values, tl.trans(grad), input_precision=INPUT_PRECISION, out_dtype=WIDE)
        else:
            value_ptr = keys_ptr + D + key_place * (3 * D)
            grad_shares = in_steps(value_ptr, key < stop, grad_row_ptr, present, WIDTH, BLOCK_W, STEP, WIDE, INPUT_PRECISION)
        grad_scores = (shares * (grad_shares - inner[None, :]) * scale).to(dtype)
        grad_query += tl.dot(tl.trans(grad_scores), keys, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        start += KEYS
    out = grad_projected_ptr + head * WIDTH + first * (3 * D) + of_row
    tl.store(out, grad_query.to(dtype), mask=row_inside)


@triton.jit(do_not_specialize=["num_rows"])  # type: ignore[untyped-decorator]
def session_attention_bwd_keys_kernel(
    projected_ptr: tl.tensor,
    begins_ptr: tl.tensor,
    ends_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    inner_ptr: tl.tensor,
    grad_projected_ptr: tl.tensor,
    num_rows: tl.tensor,
    scale: tl.tensor,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_W: tl.constexpr,
    ROWS: tl.constexpr,
    QUERIES: tl.constexpr,
    CAUSAL: tl.constexpr,
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """dv_j = sum_i P_ij dA_i and dk_j = sum_i P_ij (<dA_i, v_j> - <dA_i, A_i>) q_i / sqrt(width) of one tile and one head.

    The queries of a session are its keys: they run over the same rows as in the forward pass.
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
    row_inside = present[:, None] & within
    keys_ptr = projected_ptr + first * (3 * D) + D
    if STEP == BLOCK_W:
        keys = tl.load(keys_ptr + of_row, mask=row_inside, other=0.0)
        values = tl.load(keys_ptr + D + of_row, mask=row_inside, other=0.0)
    key_ptr = keys_ptr + place * (3 * D)

    grad_key = tl.zeros([ROWS, BLOCK_W], dtype=WIDE)
    grad_value = tl.zeros([ROWS, BLOCK_W], dtype=WIDE)
    query_place = tl.arange(0, QUERIES)
    of_head = head.to(tl.int64) * num_rows + first
    start = tl.min(begin, axis=0)
    if CAUSAL:
        start = tl.zeros([], dtype=tl.int32)
    stop = tl.max(end, axis=0)
    while start < stop:
        row = start + query_place
        inside = (row < stop)[:, None] & within
        of_query = query_place[:, None] * (3 * D) + column[None, :]
        query = tl.load(projected_ptr + (first + start) * (3 * D) + of_query, mask=inside, other=0.0)
        of_result = (first + start) * D + head * WIDTH + (query_place[:, None] * D + column[None, :])
        grad = tl.load(grad_ptr + of_result, mask=inside, other=0.0)
        lse = tl.load(lse_ptr + of_head + row, mask=row < stop, other=0.0)
        inner = tl.load(inner_ptr + of_head + row, mask=row < stop, other=0.0)
        if STEP == BLOCK_W:
            scores = tl.dot(query, tl.trans(keys), input_precision=INPUT_PRECISION, out_dtype=WIDE) * scale
        else:
            own_ptr = projected_ptr + (first + start) * (3 * D) + query_place * (3 * D)
            scores = in_steps(own_ptr, row < stop, key_ptr, present, WIDTH, BLOCK_W, STEP, WIDE, INPUT_PRECISION) * scale
        visible = (row[:, None] >= begin[None, :]) & (row[:, None] < end[None, :])
        if CAUSAL:
            visible = visible & (row[:, None] >= place[None, :])
        shares = tl.exp(tl.where(visible, scores - lse[:, None], float("-inf")))
        grad_value += tl.dot(tl.trans(shares.to(dtype)), grad, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        if STEP == BLOCK_W:
            grad_shares = tl.dot(grad, tl.trans(values), input_precision=INPUT_PRECISION, out_dtype=WIDE)
        else:
            own_ptr = grad_ptr + (first + start) * D + head * WIDTH + query_place * D
            grad_shares = in_steps(own_ptr, row < stop, key_ptr + D, present, WIDTH, BLOCK_W, STEP, WIDE, INPUT_PRECISION)
        grad_scores = (shares * (grad_shares - inner[:, None]) * scale).to(dtype)
        grad_key += tl.dot(tl.trans(grad_scores), query, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        start += QUERIES
    out = grad_projected_ptr + head * WIDTH + first * (3 * D) + D + of_row
    tl.store(out, grad_key.to(dtype), mask=row_inside)
    tl.store(out + D, grad_value.to(dtype), mask=row_inside)


def shape_of_program(dtype: torch.dtype, width: int) -> tuple[int, int, int]:
    """Rows of a tile, rows it is compared with at once, and warps; tiles of 64 rows need every register there is."""
    size = 32 if dtype.itemsize == 2 else 16
    return size, size, 8 if width > 64 else 4


def step_of_key_products(dtype: torch.dtype, width: int) -> int:
    """Columns of a product of the keys' launch that are taken at a time; in 16 bits 128 at once spill in Triton 3.9."""
    return 64 if width > 64 and dtype.itemsize == 2 else step_of_product(dtype, width)


def launch(
    grad: torch.Tensor,
    projected: torch.Tensor,
    begins: torch.Tensor,
    ends: torch.Tensor,
    attended: torch.Tensor,
    lse: torch.Tensor,
    causal: bool,
) -> torch.Tensor:
    """Gradient of queries, keys and values, [T, 3d], from that of the attended rows, [T, d]."""
    (num_heads, rows), d = lse.shape, attended.shape[1]
    grad = grad.contiguous()
    grad_projected = torch.empty_like(projected)
    inner = torch.empty_like(lse)
    width = d // num_heads
    size, others, warps = shape_of_program(projected.dtype, width)
    grid = (triton.cdiv(rows, size), num_heads)
    shared = {
        "D": d,
        "WIDTH": width,
        "BLOCK_W": block_width(width),
        "ROWS": size,
        "CAUSAL": causal,
        "WIDE": tl.float64 if lse.dtype == torch.float64 else tl.float32,
        "INPUT_PRECISION": "tf32x3",
        "num_warps": warps,
    }
    if rows:
        with torch.cuda.device_of(projected):  # type: ignore[no-untyped-call]
            session_attention_bwd_queries_kernel[grid](
                projected,
                begins,
                ends,
                attended,
                lse,
                grad,
                inner,
                grad_projected,
                rows,
                width**-0.5,
                KEYS=others,
                STEP=step_of_product(projected.dtype, width),
                **shared,
            )
            session_attention_bwd_keys_kernel[grid](
                projected,
                begins,
                ends,
                lse,
                grad,
                inner,
                grad_projected,
                rows,
                width**-0.5,
                QUERIES=others,
                STEP=step_of_key_products(projected.dtype, width),
                **shared,
            )
    return grad_projected
