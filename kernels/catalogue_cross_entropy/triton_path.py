"""The Triton kernels as operators of torch: with shapes for the compiler and gradients for autograd."""

from __future__ import annotations

from typing import Any

import torch

from kernels.catalogue_cross_entropy.backward import catalogue_backward
from kernels.catalogue_cross_entropy.forward import catalogue_forward


@torch.library.custom_op("llmgr::catalogue_cross_entropy_forward", mutates_args=())
def _forward(
    z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, scale: torch.Tensor, cosine: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return catalogue_forward(z, table, target, scale, cosine)


@_forward.register_fake
def _(
    z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, scale: torch.Tensor, cosine: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = torch.promote_types(z.dtype, torch.float32)
    losses = z.new_empty(z.shape[0], dtype=wide)
    return losses, torch.empty_like(losses), z.new_empty(table.shape[0] if cosine else 0, dtype=wide)


@torch.library.custom_op("llmgr::catalogue_cross_entropy_backward", mutates_args=())
def _backward(
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
    return catalogue_backward(weights, z, table, target, scale, lse, item_factor, cosine, needs_session, needs_table)


@_backward.register_fake
def _(
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
    z_gradient = torch.empty_like(z) if needs_session else z.new_empty(0)
    table_gradient = torch.empty_like(table) if needs_table else table.new_empty(0)
    return z_gradient, table_gradient, lse.new_empty(() if needs_session else 0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    z, table, target, scale, ctx.cosine = inputs
    _, lse, item_factor = output
    ctx.mark_non_differentiable(lse, item_factor)
    ctx.save_for_backward(z, table, target, scale, lse, item_factor)


def _differentiate(ctx: Any, weights: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    z, table, target, scale, lse, item_factor = ctx.saved_tensors
    needs_z, needs_table, _, needs_scale, _ = ctx.needs_input_grad
    z_gradient, table_gradient, scale_gradient = _backward(
        weights, z, table, target, scale, lse, item_factor, ctx.cosine, needs_z or needs_scale, needs_table
    )
    return (
        z_gradient if needs_z else None,
        table_gradient if needs_table else None,
        None,
        scale_gradient.to(scale.dtype) if needs_scale else None,
        None,
    )


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def catalogue_cross_entropy_triton(
    z: torch.Tensor,
    table: torch.Tensor,
    target: torch.Tensor,
    scale: float | torch.Tensor = 1.0,
    cosine: bool = False,
    reduction: str = "mean",
) -> torch.Tensor:
    """Same meaning as ``catalogue_cross_entropy_reference``; logits in float32 from factors of the inputs' dtype.

    Inputs of two dtypes meet in the one that holds both.
    """
    dtype = torch.promote_types(z.dtype, table.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    # A number goes into a kernel's launch without a copy from the host, which a captured graph could not repeat.
    factor = scale.to(z.device) if isinstance(scale, torch.Tensor) else torch.full((), scale, dtype=wide, device=z.device)
    losses: torch.Tensor
    if len(z) == 0:
        losses = torch.linalg.vecdot(z.to(wide) * factor, table.to(wide).index_select(0, target))
    else:
        losses, _, _ = _forward(z.to(dtype).contiguous(), table.to(dtype).contiguous(), target.contiguous(), factor, cosine)
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
