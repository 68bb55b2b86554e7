"""Cross-entropy over the catalogue whose gradients are made in the forward pass, chunk by chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from kernels.catalogue_cross_entropy.reference import NORM_EPSILON
from kernels.catalogue_cross_entropy.softmax_pass import softmax_pass


def catalogue_cross_entropy_torch(
    z: torch.Tensor,
    table: torch.Tensor,
    target: torch.Tensor,
    scale: float | torch.Tensor = 1.0,
    cosine: bool = False,
    reduction: str = "mean",
) -> torch.Tensor:
    """Same meaning as ``catalogue_cross_entropy_reference``; half-precision inputs are computed in float32."""
    scale = torch.as_tensor(scale, dtype=torch.promote_types(z.dtype, torch.float32), device=z.device)
    if cosine:
        z, table = _directions(z), _directions(table)
    # Inside the function gradients are switched off, so it is told here whether anyone will ask for them.
    with_gradients = torch.is_grad_enabled()
    return _CatalogueCrossEntropy.apply(  # type: ignore[no-any-return, no-untyped-call]
        z, table, target, scale, reduction, with_gradients
    )


def _directions(rows: torch.Tensor) -> torch.Tensor:
    return _Directions.apply(rows)  # type: ignore[no-any-return, no-untyped-call]


class _Directions(torch.autograd.Function):
    """x / |x|; a vector of norm below 1e-12 counts as zero and gets no gradient."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        # A float32 sum of squares: half precision would overflow and lose the direction's last bits.
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        inverse = torch.where(norm > NORM_EPSILON, norm.reciprocal(), torch.zeros_like(norm))
        directions = wide * inverse
        ctx.save_for_backward(directions, inverse)
        ctx.dtype = rows.dtype
        return directions

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        directions, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, directions).unsqueeze(1)
        return torch.addcmul(grad, directions, along, value=-1).mul_(inverse).to(ctx.dtype)


class _CatalogueCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: torch.Tensor,
        table: torch.Tensor,
        target: torch.Tensor,
        scale: torch.Tensor,
        reduction: str,
        with_gradients: bool,
    ) -> torch.Tensor:
        needs_z, needs_table, _, needs_scale, *_ = (needed and with_gradients for needed in ctx.needs_input_grad)
        ctx.reduction = reduction
        ctx.dtypes = z.dtype, table.dtype
        dtype = torch.promote_types(torch.promote_types(z.dtype, table.dtype), torch.float32)
        with torch.autocast(z.device.type, enabled=False):
            wide, items = z.to(dtype), table.to(dtype)
            scaled = wide * scale
            row_weights = None
            if reduction != "none" and (needs_z or needs_table or needs_scale):
                row_weights = torch.full_like(scaled[:, 0], 1.0 / max(1, len(z)) if reduction == "mean" else 1.0)
            outcome = softmax_pass(scaled, items, row_weights, needs_z or needs_scale, needs_table)
            losses: torch.Tensor = outcome.lse - torch.linalg.vecdot(scaled, items.index_select(0, target))
            if reduction == "none":
                ctx.save_for_backward(wide, items, target, scale)
                return losses
            if row_weights is not None:
                ctx.save_for_backward(*_gradients(wide, items, target, scale, row_weights, outcome.z_grad, outcome.table_grad))
            return losses.mean() if reduction == "mean" else losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        needs_z, needs_table, _, needs_scale, *_ = ctx.needs_input_grad
        if ctx.reduction == "none":
            wide, items, target, scale = ctx.saved_tensors
            outcome = softmax_pass(wide * scale, items, grad.to(wide), needs_z or needs_scale, needs_table)
            grads = _gradients(wide, items, target, scale, grad.to(wide), outcome.z_grad, outcome.table_grad)
            factor = None
        else:
            grads, factor = ctx.saved_tensors, grad
        z_grad, table_grad, scale_grad = (part if part is None or factor is None else part * factor for part in grads)
        z_dtype, table_dtype = ctx.dtypes
        return (
            z_grad.to(z_dtype) if needs_z and z_grad is not None else None,
            table_grad.to(table_dtype) if needs_table and table_grad is not None else None,
            None,
            scale_grad if needs_scale else None,
            None,
            None,
        )


def _gradients(
    wide: torch.Tensor,
    items: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor,
    row_weights: torch.Tensor,
    z_grad: torch.Tensor | None,
    table_grad: torch.Tensor | None,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Take the target's share off the gradients of the weighted log-sum-exp; those of (z, table, scale)."""
    weight = row_weights[:, None]
    if table_grad is not None:
        table_grad.index_add_(0, target, (wide * scale) * weight, alpha=-1)
    if z_grad is None:
        return None, table_grad, None
    z_grad.addcmul_(items.index_select(0, target), weight, value=-1)
    return z_grad * scale, table_grad, (z_grad * wide).sum()
