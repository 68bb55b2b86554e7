"""Ranks of the targets in one Triton launch: tiles of scores are compared with the target's and counted."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.catalogue_cross_entropy.forward import input_precision, inverse_norms, load_rows
from kernels.catalogue_cross_entropy.tile_sizes import FORWARD, Tiles, block_width, choose, split_catalogue

# The softmax's tiles, smaller where the second product of the target's score would spill.
TILES = {
    "half": FORWARD["half"],
    "single": {**FORWARD["single"], 128: Tiles(16, 64, 8, 2)},
    "single_hopper": {**FORWARD["single_hopper"], 128: Tiles(64, 32, 8, 2)},
}


@triton.jit(do_not_specialize=["num_sessions", "num_items", "tiles_per_split"])  # type: ignore[untyped-decorator]
def target_rank_kernel(
    z_ptr: tl.tensor,
    table_ptr: tl.tensor,
    item_factor_ptr: tl.tensor,
    target_ptr: tl.tensor,
    above_ptr: tl.tensor,
    num_sessions: tl.tensor,
    num_items: tl.tensor,
    tiles_per_split: tl.tensor,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COSINE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """Items of one split that score above the target; program (i, j): session tile i, split j.

    The target's own score comes out of the same kind of product as the others, so that an equal row has an equal score.
    """
    place = tl.arange(0, BLOCK_B)
    session = tl.program_id(0) * BLOCK_B + place
    split = tl.program_id(1)
    inside = session < num_sessions
    z = load_rows(z_ptr, session, num_sessions, D, BLOCK_D)
    target = tl.load(target_ptr + session, mask=inside, other=0)
    # A device cannot refuse a target outside the table; it must only not read there.
    target = tl.where((target >= 0) & (target < num_items), target, 0)
    rows = load_rows(table_ptr, target, num_items, D, BLOCK_D)
    crossed = tl.dot(z, tl.trans(rows), input_precision=INPUT_PRECISION)
    limit = tl.sum(tl.where(place[:, None] == place[None, :], crossed, 0.0), axis=1)
    if COSINE:
        limit = limit * tl.load(item_factor_ptr + target, mask=inside, other=0.0)
    above = tl.zeros((BLOCK_B,), tl.int32)
    for step in range(tiles_per_split):
        item = (split * tiles_per_split + step) * BLOCK_V + tl.arange(0, BLOCK_V)
        items = load_rows(table_ptr, item, num_items, D, BLOCK_D)
        scores = tl.dot(z, tl.trans(items), input_precision=INPUT_PRECISION)
        if COSINE:
            scores = scores * tl.load(item_factor_ptr + item, mask=item < num_items, other=0.0)[None, :]
        counts = (scores > limit[:, None]) & (item < num_items)[None, :] & (item[None, :] != target[:, None])
        above += tl.sum(counts.to(tl.int32), axis=1)
    tl.store(above_ptr + split.to(tl.int64) * num_sessions + session, above, mask=inside)


def rank_targets(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, cosine: bool) -> torch.Tensor:
    """Launch the kernel: z [B, d] and table [V, d] contiguous, of one dtype, B and V > 0; int64 [B]."""
    num_sessions, dimension = z.shape
    item_factor = inverse_norms(table) if cosine else z.new_empty(0, dtype=torch.promote_types(z.dtype, torch.float32))
    tiles = choose(TILES, z)
    splits, per_split = split_catalogue(num_sessions, len(table), tiles)
    above = torch.empty((splits, num_sessions), dtype=torch.int32, device=z.device)
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        target_rank_kernel[(triton.cdiv(num_sessions, tiles.sessions), splits)](
            z,
            table,
            item_factor,
            target,
            above,
            num_sessions,
            len(table),
            per_split,
            D=dimension,
            BLOCK_B=tiles.sessions,
            BLOCK_V=tiles.items,
            BLOCK_D=block_width(dimension),
            COSINE=cosine,
            INPUT_PRECISION=input_precision(z.dtype),
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )
    return 1 + above.sum(dim=0, dtype=torch.int64)
