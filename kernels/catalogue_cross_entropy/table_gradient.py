"""Gradient of the losses with respect to the item table: a program keeps a tile of items and goes over all sessions."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.catalogue_cross_entropy.forward import input_precision, lift, load_rows
from kernels.catalogue_cross_entropy.tile_sizes import TABLE_GRADIENT, block_width, choose


@triton.jit(do_not_specialize=["num_sessions", "num_items", "session_tiles"])  # type: ignore[untyped-decorator]
def catalogue_table_gradient_kernel(
    z_ptr: tl.tensor,
    table_ptr: tl.tensor,
    item_factor_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    target_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    factor_ptr: tl.tensor,
    table_gradient_ptr: tl.tensor,
    num_sessions: tl.tensor,
    num_items: tl.tensor,
    session_tiles: tl.tensor,
    D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COSINE: tl.constexpr,
    LIFT: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """f_v c sum_b w_b (p_bv - [v = target_b]) z_b, less its part along t_v under COSINE; program i: item tile i."""
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
        # Rows past the last item may overflow; nobody stores them.
        logits = tl.dot(items, tl.trans(z), input_precision=INPUT_PRECISION) * item_scale
        share = tl.exp2(logits - lse[None, :])
        share = tl.where(item[:, None] == target[None, :], share - 2.0**LIFT, share) * weight[None, :]
        gradient += tl.dot(share.to(z.dtype), z, input_precision=INPUT_PRECISION)
    gradient = gradient * (tl.load(factor_ptr).to(wide) * 2.0**-LIFT)
    if COSINE:
        direction = load_rows(table_ptr, item, num_items, D, BLOCK_D).to(wide) * inverse_norm
        along = tl.sum(direction * gradient, axis=1)[:, None]
        gradient = (gradient - along * direction) * inverse_norm
    column = tl.arange(0, BLOCK_D)
    place = item.to(tl.int64)[:, None] * D + column[None, :]
    tl.store(table_gradient_ptr + place, gradient, mask=(item < num_items)[:, None] & (column < D)[None, :])


def table_gradient(
    weights: torch.Tensor,
    directed: torch.Tensor,
    table: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor,
    lse: torch.Tensor,
    item_factor: torch.Tensor,
    cosine: bool,
) -> torch.Tensor:
    """[V, d] in the dtype of the table; arguments as of ``catalogue_backward``, ``directed`` z or its directions."""
    num_sessions, dimension = directed.shape
    tiles = choose(TABLE_GRADIENT, table)
    factor = scale.to(lse.dtype)
    if lift(table.dtype):
        # The weights of a mean would leave fp16 at its lower end.
        largest = weights.abs().amax()
        largest = torch.where(largest > 0, largest, 1.0)
        weights, factor = weights / largest, factor * largest
    gradient = torch.empty_like(table)
    with torch.cuda.device_of(table):  # type: ignore[no-untyped-call]
        catalogue_table_gradient_kernel[(triton.cdiv(len(table), tiles.items),)](
            directed,
            table,
            item_factor,
            scale,
            target,
            lse,
            weights,
            factor,
            gradient,
            num_sessions,
            len(table),
            triton.cdiv(num_sessions, tiles.sessions),
            D=dimension,
            BLOCK_B=tiles.sessions,
            BLOCK_V=tiles.items,
            BLOCK_D=block_width(dimension),
            COSINE=cosine,
            LIFT=lift(table.dtype),
            INPUT_PRECISION=input_precision(table.dtype),
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )
    return gradient
