"""The gradient of the table in Triton: runs of equal sorted ids are summed within chunks, then across them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

WIDEST_BLOCK = 64
CHUNKS_AT_ONCE = 32


@triton.jit(do_not_specialize=["num_places"])  # type: ignore[untyped-decorator]
def item_rows_chunk_kernel(
    grad_ptr: tl.tensor,
    ids_ptr: tl.tensor,
    places_ptr: tl.tensor,
    table_grad_ptr: tl.tensor,
    heads_ptr: tl.tensor,
    tails_ptr: tl.tensor,
    num_places: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """Sum the runs of equal ids inside one chunk of sorted places: S = [id_i = id_j] grad, a product with a 0/1 matrix.

    A run that lies in the chunk is finished and goes to the table's gradient. Of a run that began before the chunk the sum is
    kept as the chunk's head, of one that begins here and goes on behind it as its tail.
    """
    chunk = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    place = chunk * CHUNK + tl.arange(0, CHUNK)
    present = place < num_places
    number = tl.load(ids_ptr + place, mask=present, other=-1).to(tl.int64)
    before = tl.load(ids_ptr + place - 1, mask=present & (place > 0), other=-1).to(tl.int64)
    chunk_before = tl.load(ids_ptr + chunk * CHUNK - 1, mask=chunk > 0, other=-1).to(tl.int64)
    chunk_after = tl.load(ids_ptr + (chunk + 1) * CHUNK, mask=(chunk + 1) * CHUNK < num_places, other=-1).to(tl.int64)

    source = tl.load(places_ptr + place, mask=present, other=0)
    inside = present[:, None] & (column < D)[None, :]
    rows = tl.load(grad_ptr + source[:, None] * D + column[None, :], mask=inside, other=0.0)
    equal = ((number[:, None] == number[None, :]) & present[None, :]).to(rows.dtype)
    sums = tl.dot(equal, rows, input_precision=INPUT_PRECISION, out_dtype=heads_ptr.dtype.element_ty)

    # Every place of a run holds the sum of the run; the first one stores it.
    first = present & ((number != before) | (place == chunk * CHUNK))
    is_head = first & (number == chunk_before)
    is_tail = first & (number == chunk_after) & (number != chunk_before)
    finished = first & (number != chunk_before) & (number != chunk_after)
    within = (column < D)[None, :]
    partial = (chunk * D + column)[None, :] + tl.zeros([CHUNK, 1], dtype=tl.int64)
    tl.store(heads_ptr + partial, sums, mask=is_head[:, None] & within)
    tl.store(tails_ptr + partial, sums, mask=is_tail[:, None] & within)
    cell = number[:, None] * D + column[None, :]
    tl.store(table_grad_ptr + cell, sums.to(table_grad_ptr.dtype.element_ty), mask=finished[:, None] & within)


@triton.jit(do_not_specialize=["num_places"])  # type: ignore[untyped-decorator]
def item_rows_run_kernel(
    ids_ptr: tl.tensor,
    table_grad_ptr: tl.tensor,
    heads_ptr: tl.tensor,
    tails_ptr: tl.tensor,
    num_places: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS_AT_ONCE: tl.constexpr,
) -> None:
    """Finish the run that begins in a chunk and goes on behind it: its tail and the heads of the chunks it reaches."""
    chunk = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    within = column < D
    chunk_before = tl.load(ids_ptr + chunk * CHUNK - 1, mask=chunk > 0, other=-1).to(tl.int64)
    number = tl.load(ids_ptr + (chunk + 1) * CHUNK - 1, mask=(chunk + 1) * CHUNK < num_places, other=-1).to(tl.int64)
    chunk_after = tl.load(ids_ptr + (chunk + 1) * CHUNK, mask=(chunk + 1) * CHUNK < num_places, other=-2).to(tl.int64)
    if (number == chunk_after) & (number != chunk_before):
        total = tl.load(tails_ptr + chunk * D + column, mask=within, other=0.0)
        following = chunk + 1 + tl.arange(0, CHUNKS_AT_ONCE).to(tl.int64)
        goes_on = True
        while goes_on:
            reached = tl.load(ids_ptr + following * CHUNK, mask=following * CHUNK < num_places, other=-1).to(tl.int64) == number
            cell = following[:, None] * D + column[None, :]
            total += tl.sum(tl.load(heads_ptr + cell, mask=reached[:, None] & within[None, :], other=0.0), axis=0)
            following += CHUNKS_AT_ONCE
            goes_on = tl.sum(reached.to(tl.int32), axis=0) == CHUNKS_AT_ONCE
        tl.store(table_grad_ptr + number * D + column, total.to(table_grad_ptr.dtype.element_ty), mask=within)


def chunk_size(dtype: torch.dtype) -> int:
    """Places in a chunk: the three products that make one of float32 leave registers for half as many."""
    return 64 if dtype.itemsize == 2 else 32


def launch(grad: torch.Tensor, ids: torch.Tensor, num_rows: int) -> torch.Tensor:
    """d table, [V, d], from grad [N, d] and int64 ids [N]: a stable sort and two launches."""
    n, d = grad.shape
    table_grad = torch.zeros(num_rows, d, dtype=grad.dtype, device=grad.device)
    if n == 0 or d == 0:
        return table_grad
    # Half the passes of a radix sort.
    keys = ids.to(torch.int32) if num_rows < 2**31 else ids
    numbers, places = torch.sort(keys, stable=True)
    size = chunk_size(grad.dtype)
    chunks = triton.cdiv(n, size)
    block = min(WIDEST_BLOCK, max(16, triton.next_power_of_2(d)))
    wide = torch.promote_types(grad.dtype, torch.float32)
    heads, tails = (torch.empty(chunks, d, dtype=wide, device=grad.device) for _ in range(2))
    grid = (chunks, triton.cdiv(d, block))
    with torch.cuda.device_of(grad):  # type: ignore[no-untyped-call]
        item_rows_chunk_kernel[grid](
            grad.contiguous(),
            numbers,
            places,
            table_grad,
            heads,
            tails,
            n,
            D=d,
            BLOCK_D=block,
            CHUNK=size,
            INPUT_PRECISION="tf32x3",
            num_warps=4,
        )
        if chunks > 1:
            item_rows_run_kernel[grid](
                numbers,
                table_grad,
                heads,
                tails,
                n,
                D=d,
                BLOCK_D=block,
                CHUNK=size,
                CHUNKS_AT_ONCE=CHUNKS_AT_ONCE,
                num_warps=4,
            )
    return table_grad
