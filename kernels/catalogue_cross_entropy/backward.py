"""Gradients of the losses from recomputed tiles of probabilities: sessions in one Triton kernel, items in another."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.catalogue_cross_entropy.forward import ROWS, directions, input_precision, inverse_norms, load_rows
from kernels.catalogue_cross_entropy.tile_sizes import (
    SESSION_GRADIENT,
    TABLE_GRADIENT,
    block_width,
    choose,
    split_catalogue,
)


@triton.jit(do_not_specialize=["num_sessions", "num_items", "tiles_per_split"])
def catalogue_session_gradient_kernel(
    z_ptr,
    table_ptr,
    item_factor_ptr,
    scale_ptr,
    target_ptr,
    lse_ptr,
    partial_ptr,
    num_sessions,
    num_items,
    tiles_per_split,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COSINE: tl.constexpr,
    LIFT: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
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
        factor = scale
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
        gradient = tl.dot(share.to(items.dtype), items, gradient, input_precision=INPUT_PRECISION)
    place = (split.to(tl.int64) * num_sessions + session)[:, None] * D + tl.arange(0, BLOCK_D)[None, :]
    tl.store(partial_ptr + place, gradient * 2.0**-LIFT, mask=inside[:, None] & (tl.arange(0, BLOCK_D) < D)[None, :])


@triton.jit(do_not_specialize=["num_sessions", "splits"])
def catalogue_session_merge_kernel(
    z_ptr,
    session_factor_ptr,
    scale_ptr,
    weight_ptr,
    partial_ptr,
    z_gradient_ptr,
    scale_gradient_ptr,
    num_sessions,
    splits,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COSINE: tl.constexpr,
):
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


@triton.jit(do_not_specialize=["num_sessions", "num_items", "session_tiles"])
def catalogue_table_gradient_kernel(
    z_ptr,
    table_ptr,
    item_factor_ptr,
    scale_ptr,
    target_ptr,
    lse_ptr,
    weight_ptr,
    factor_ptr,
    table_gradient_ptr,
    num_sessions,
    num_items,
    session_tiles,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COSINE: tl.constexpr,
    LIFT: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    """f_v c sum_b w_b (p_bv - [v = target_b]) z_b, under COSINE without its part along t_v; a program for each tile of items."""
    wide = lse_ptr.dtype.element_ty
    item = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    items = load_rows(table_ptr, item, num_items, D, BLOCK_D)
    scale = tl.load(scale_ptr).to(wide) * tl.full((), 1.4426950408889634, wide)
    if COSINE:
        inverse_norm = tl.load(item_factor_ptr + item, mask=item < num_items, other=0.0)[:, None]
        item_scale = inverse_norm * scale
    else:
        item_scale = scale
    gradient = tl.zeros((BLOCK_V, BLOCK_D), wide)
    for step in range(session_tiles):
        session = step * BLOCK_B + tl.arange(0, BLOCK_B)
        inside = session < num_sessions
        z = load_rows(z_ptr, session, num_sessions, D, BLOCK_D)
        # Past the last session nothing is added: weight and vector are zero, and the logit 0 keeps the power finite.
        lse = tl.load(lse_ptr + session, mask=inside, other=0.0) - LIFT
        target = tl.load(target_ptr + session, mask=inside, other=-1).to(tl.int32)
        weight = tl.load(weight_ptr + session, mask=inside, other=0.0)
        logits = tl.dot(items, tl.trans(z), input_precision=INPUT_PRECISION) * item_scale
        share = tl.exp2(logits - lse[None, :])
        share = tl.where(item[:, None] == target[None, :], share - 2.0**LIFT, share) * weight[None, :]
        gradient = tl.dot(share.to(z.dtype), z, gradient, input_precision=INPUT_PRECISION)
    gradient = gradient * (tl.load(factor_ptr).to(wide) * 2.0**-LIFT)
    if COSINE:
        direction = load_rows(table_ptr, item, num_items, D, BLOCK_D).to(wide) * inverse_norm
        along = tl.sum(direction * gradient, axis=1)[:, None]
        gradient = (gradient - along * direction) * inverse_norm
    column = tl.arange(0, BLOCK_D)
    place = item.to(tl.int64)[:, None] * D + column[None, :]
    tl.store(table_gradient_ptr + place, gradient, mask=(item < num_items)[:, None] & (column < D)[None, :])


def catalogue_backward(
    weights: torch.Tensor,
    z: torch.Tensor,
    table: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor,
    lse: torch.Tensor,
    item_factor: torch.Tensor,
    cosine: bool,
    needs_session: bool,
    needs_table: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the backward kernels.

    Args:
        weights: float [B], w_b, the gradients of the losses.
        z, table, target, scale, cosine: as given to the forward pass.
        lse, item_factor: as it returned them.
        needs_session: gradients with respect to z and the scale are wanted.
        needs_table: that with respect to the table is wanted.

    Returns:
        Gradients of sum_b w_b loss_b with respect to z [B, d], table [V, d] and scale (0-d, in the dtype of ``lse``); where not
        wanted, empty ones.
    """
    weights = weights.to(lse.dtype).contiguous()
    session_factor = inverse_norms(z) if cosine else lse.new_empty(0)
    directed = directions(z, session_factor) if cosine else z
    z_gradient, scale_gradient = z.new_empty(0), lse.new_empty(0)
    if needs_session:
        z_gradient, scale_gradient = _session_gradient(
            weights, z, directed, session_factor, table, target, scale, lse, item_factor, cosine
        )
    table_gradient = table.new_empty(0)
    if needs_table:
        table_gradient = _table_gradient(weights, directed, table, target, scale, lse, item_factor, cosine)
    return z_gradient, table_gradient, scale_gradient


def lift(dtype: torch.dtype) -> int:
    """Power of two by which probabilities are raised before they become factors of a product."""
    return 15 if dtype == torch.float16 else 0


def _session_gradient(
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
    num_sessions, dimension = z.shape
    tiles = choose(SESSION_GRADIENT, dimension, z.dtype)
    splits, per_split = split_catalogue(num_sessions, len(table), tiles)
    partial = torch.empty((splits, num_sessions, dimension), dtype=lse.dtype, device=z.device)
    z_gradient = torch.empty_like(z)
    along = torch.empty_like(lse)
    with torch.cuda.device_of(z):
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
            BLOCK_D=tiles.block,
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


def _table_gradient(
    weights: torch.Tensor,
    directed: torch.Tensor,
    table: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor,
    lse: torch.Tensor,
    item_factor: torch.Tensor,
    cosine: bool,
) -> torch.Tensor:
    num_sessions, dimension = directed.shape
    tiles = choose(TABLE_GRADIENT, dimension, table.dtype)
    factor = scale.to(lse.dtype)
    if lift(table.dtype):
        # The weights of a mean would leave fp16 at its lower end.
        largest = weights.abs().amax()
        largest = torch.where(largest > 0, largest, 1.0)
        weights, factor = weights / largest, factor * largest
    table_gradient = torch.empty_like(table)
    with torch.cuda.device_of(table):
        catalogue_table_gradient_kernel[(triton.cdiv(len(table), tiles.items),)](
            directed,
            table,
            item_factor,
            scale,
            target,
            lse,
            weights,
            factor,
            table_gradient,
            num_sessions,
            len(table),
            triton.cdiv(num_sessions, tiles.sessions),
            D=dimension,
            BLOCK_B=tiles.sessions,
            BLOCK_V=tiles.items,
            BLOCK_D=tiles.block,
            COSINE=cosine,
            LIFT=lift(table.dtype),
            INPUT_PRECISION=input_precision(table.dtype),
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )
    return table_gradient
