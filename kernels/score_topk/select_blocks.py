"""The few blocks of items in which a session's best items must lie."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.score_topk.bitonic import keep_best, largest, turned_round
from kernels.score_topk.keys import NOTHING, as_keys, items_of


@triton.jit(do_not_specialize=["num_blocks"])  # type: ignore[untyped-decorator]
def select_blocks_kernel(
    maxima_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    num_blocks: tl.tensor,
    SLOTS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPAN: tl.constexpr,
) -> None:
    """The SLOTS blocks with the largest maxima of one session, ties by rising block: int64 [B, SLOTS], -1 where there is none.

    The k best items lie in the k blocks of the largest maxima: an item outside them is beaten by the best item of each. By the
    same argument the best blocks lie in the best columns of the maxima laid out as [SPAN, WIDTH]; with SPAN = 0 the maxima
    are streamed instead, for as many SLOTS as no block of registers holds SPAN times.
    """
    session = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    maxima_ptr += session * num_blocks
    begin = 0
    if SPAN == 0:
        best = tl.full([SLOTS], NOTHING, tl.int64)
        while begin < num_blocks:
            block = begin + column
            maximum = tl.load(maxima_ptr + block, mask=block < num_blocks, other=float("-inf"))
            keys = as_keys(maximum, block)
            if tl.max(keys, axis=0) > tl.min(best, axis=0):
                best = keep_best(best, keys, SLOTS)
            begin += WIDTH
        best = turned_round(best, SLOTS)
    else:
        best = tl.full([WIDTH], NOTHING, tl.int64)
        while begin < num_blocks:
            block = begin + column
            maximum = tl.load(maxima_ptr + block, mask=block < num_blocks, other=float("-inf"))
            best = tl.maximum(best, as_keys(maximum, block))
            begin += WIDTH
        best = largest(best, SLOTS)
        if SPAN > 1:
            block = (items_of(best) % WIDTH)[:, None] + WIDTH * tl.arange(0, SPAN)[None, :]
            wanted = (best > NOTHING)[:, None] & (block < num_blocks)
            maximum = tl.load(maxima_ptr + block, mask=wanted, other=float("-inf"))
            best = largest(tl.reshape(as_keys(maximum, block), [SLOTS * SPAN]), SLOTS)
    slot = tl.arange(0, SLOTS)
    tl.store(blocks_ptr + session * SLOTS + slot, tl.where(best > NOTHING, items_of(best), -1))
