"""Adding to a few rows of a matrix in place, no row twice, so that nothing can collide."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

ROWS = 16
WIDEST_BLOCK = 64


@triton.jit(do_not_specialize=["num_rows"])  # type: ignore[untyped-decorator]
def add_to_rows_kernel(
    target_ptr: tl.tensor,
    places_ptr: tl.tensor,
    rows_ptr: tl.tensor,
    num_rows: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """target[places[i]] += rows[i], summed in the wider of the two dtypes."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    place = tl.load(places_ptr + row, mask=row < num_rows, other=-1)
    inside = (place >= 0)[:, None] & (column < D)[None, :]
    added = tl.load(rows_ptr + row[:, None] * D + column[None, :], mask=inside, other=0.0)
    cell = place[:, None] * D + column[None, :]
    before = tl.load(target_ptr + cell, mask=inside, other=0.0)
    tl.store(target_ptr + cell, (before + added).to(target_ptr.dtype.element_ty), mask=inside)


def add_to_rows(target: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> None:
    """Add rows [B, d] to those rows of ``target`` [N, d] (contiguous) that int64 ``places`` [B] names; -1 names none.

    Apart from -1 no place may stand twice.
    """
    count, d = rows.shape
    if count == 0 or d == 0:
        return
    block = min(WIDEST_BLOCK, triton.next_power_of_2(d))
    with torch.cuda.device_of(target):  # type: ignore[no-untyped-call]
        add_to_rows_kernel[(triton.cdiv(count, ROWS), triton.cdiv(d, block))](
            target, places, rows.contiguous(), count, D=d, BLOCK_D=block, ROWS=ROWS, num_warps=2
        )
