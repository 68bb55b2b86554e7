"""Gradient of the losses with respect to session vectors and scale: tiles of probabilities recomputed, splits merged."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.catalogue_cross_entropy.forward import ROWS, input_precision, lift, load_rows
from kernels.catalogue_cross_entropy.tile_sizes import SESSION_GRADIENT, block_width, choose, split_catalogue


@triton.jit(do_not_specialize=["num_sessions", "num_items", "tiles_per_split"])  # type: ignore[untyped-decorator]
def catalogue_session_gradient_kernel(
    z_ptr: tl.tensor,
    table_ptr: tl.tensor,
    item_factor_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    target_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    partial_ptr: tl.tensor,
    num_sessions: tl.tensor,
    num_items: tl.tensor,
    tiles_per_split: tl.tensor,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COSINE: tl.constexpr,
    LIFT: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """sum_v (p_bv - [v = target_b]) f_v t_v over the items of one split, in fp32: program (i, j) as in the forward pass.

    LIFT: the probabilities enter the product times 2^LIFT, because fp16 ends at 6e-8 and catalogues do not.
    """
    wide = partial_ptr.dtype.element_ty
    session = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    split = tl.program_id(1)
    inside = session < num_sessions
    z = load_rows(z_ptr, session, num_sessions, D, BLOCK_D)
    scale = tl.load(scale_ptr).to(wide) * tl.full((), 1.4426950408889634, wide)
    lse = tl.load(lse_ptr + session, mask=inside, other=0.0) - LIFT
    target = tl.load(target_ptr + session, mask=inside, other=0).to(tl.int32)
    gradient = tl.zeros((BLOCK_B, BLOCK_D), wide)
    for step in range(tiles_per_split):
        item = (split * tiles_per_split + step) * BLOCK_V + tl.arange(0, BLOCK_V)
        items = load_rows(table_ptr, item, num_items, D, BLOCK_D)
        logits = tl.dot(z, tl.trans(items), input_precision=INPUT_PRECISION)
        if COSINE:
            inverse_norm = tl.load(item_factor_ptr + item, mask=item < num_items, other=0.0)
            logits = logits * (inverse_norm * scale)[None, :]
        else:
            logits = logits * scale
        logits = tl.where((item < num_items)[None, :], logits, float("-inf"))
        share = tl.exp2(logits - lse[:, None])
        share = tl.where(item[None, :] == target[:, None], share - 2.0**LIFT, share)
        if COSINE:
            if LIFT:
                # Inverse norms have no bound that fp16 could hold, directions have.
                items = (items.to(wide) * inverse_norm[:, None]).to(items.dtype)
            else:
                share = share * inverse_norm[None, :]
        gradient += tl.dot(share.to(items.dtype), items, input_precision=INPUT_PRECISION)
    place = (split.to(tl.int64) * num_sessions + session)[:, None] * D + tl.arange(0, BLOCK_D)[None, :]
    tl.store(partial_ptr + place, gradient * 2.0**-LIFT, mask=inside[:, None] & (tl.arange(0, BLOCK_D) < D)[None, :])


@triton.jit(do_not_specialize=["num_sessions", "splits"])  # type: ignore[untyped-decorator]
def catalogue_session_merge_kernel(
    z_ptr: tl.tensor,
    session_factor_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    partial_ptr: tl.tensor,
    z_gradient_ptr: tl.tensor,
    scale_gradient_ptr: tl.tensor,
    num_sessions: tl.tensor,
    splits: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COSINE: tl.constexpr,
) -> None:
    """Splits merged in their order; weight, scale and the derivative of z / |z| applied; <z_b, .> for the scale's gradient."""
    wide = partial_ptr.dtype.element_ty
    session = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = session < num_sessions
    cells = inside[:, None] & (column < D)[None, :]
    gradient = tl.zeros((ROWS, BLOCK_D), wide)
    for split in range(splits):
        row = session + tl.full((ROWS,), split, tl.int64) * num_sessions
        gradient += tl.load(partial_ptr + row[:, None] * D + column[None, :], mask=cells, other=0.0)
    gradient = gradient * tl.load(weight_ptr + session, mask=inside, other=0.0)[:, None]
    z = load_rows(z_ptr, session, num_sessions, D, BLOCK_D).to(wide)
    if COSINE:
        inverse_norm = tl.load(session_factor_ptr + session, mask=inside, other=0.0)[:, None]
        z = z * inverse_norm
    along = tl.sum(z * gradient, axis=1)
    tl.store(scale_gradient_ptr + session, along, mask=inside)
    if COSINE:
        gradient = (gradient - along[:, None] * z) * inverse_norm
    gradient = gradient * tl.load(scale_ptr).to(wide)
    tl.store(z_gradient_ptr + session.to(tl.int64)[:, None] * D + column[None, :], gradient, mask=cells)


def session_gradient(
    weights: torch.Tensor,
    z: torch.Tensor,
    directed: torch.Tensor,
    session_factor: torch.Tensor,
    table: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor,
    lse: torch.Tensor,
    item_factor: torch.Tensor,
    cosine: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, d] in the dtype of z, and 0-d; arguments as of ``catalogue_backward``.

    Args:
        directed: z, or its directions under ``cosine``.
        session_factor: float [B], inverse norms of z under ``cosine``.
    """
    num_sessions, dimension = z.shape
    tiles = choose(SESSION_GRADIENT, z)
    splits, per_split = split_catalogue(num_sessions, len(table), tiles)
    partial = torch.empty((splits, num_sessions, dimension), dtype=lse.dtype, device=z.device)
    z_gradient = torch.empty_like(z)
    along = torch.empty_like(lse)
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        catalogue_session_gradient_kernel[(triton.cdiv(num_sessions, tiles.sessions), splits)](
            directed,
            table,
            item_factor,
            scale,
            target,
            lse,
            partial,
            num_sessions,
            len(table),
            per_split,
            D=dimension,
            BLOCK_B=tiles.sessions,
            BLOCK_V=tiles.items,
            BLOCK_D=block_width(dimension),
            COSINE=cosine,
            LIFT=lift(z.dtype),
            INPUT_PRECISION=input_precision(z.dtype),
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )
        catalogue_session_merge_kernel[(triton.cdiv(num_sessions, ROWS),)](
            z,
            session_factor,
            scale,
            weights,
            partial,
            z_gradient,
            along,
            num_sessions,
            splits,
            D=dimension,
            ROWS=ROWS,
            BLOCK_D=block_width(dimension),
            COSINE=cosine,
        )
    return z_gradient, along.sum()
