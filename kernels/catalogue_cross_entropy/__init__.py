"""Softmax cross-entropy over the whole catalogue, without a B x V matrix."""

from __future__ import annotations

from typing import Literal

import torch

from kernels.catalogue_cross_entropy.tile_sizes import widest
from kernels.catalogue_cross_entropy.torch_path import catalogue_cross_entropy_torch
from kernels.dispatch import chosen_path

__all__ = ["catalogue_cross_entropy"]


def catalogue_cross_entropy(
    z: torch.Tensor,
    table: torch.Tensor,
    target: torch.Tensor,
    scale: float | torch.Tensor = 1.0,
    cosine: bool = False,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> torch.Tensor:
    """Cross-entropy of softmax(scale * z table^T) against the target items.

        loss_b = log sum_v exp(scale <z_b, t_v>) - scale <z_b, t_target(b)>

    Args:
        z: float [B, d], session vectors.
        table: float [V, d], one row an item.
        target: int64 [B], item to predict, in 0..V-1.
        scale: inverse temperature; a 0-d tensor may ask for its gradient.
        cosine: divide z_b and t_v by their norms first; a vector of norm below 1e-12 counts as zero and gets no
            gradient.
        reduction: ``mean`` (NaN for an empty batch), ``sum`` or ``none``.

    Returns:
        float32 (float64 for float64 inputs), 0-d, or [B] with ``none``. First derivatives with respect to z, table and
        scale; same result on every run.

    Raises:
        ValueError: shapes do not fit, an unknown reduction, or a target outside the catalogue (seen on the CPU only: a GPU,
            which would have to wait for it, gives NaN instead).
    """
    if z.ndim != 2 or table.ndim != 2 or z.shape[1] != table.shape[1] or target.shape != z.shape[:1]:
        raise ValueError(f"z {tuple(z.shape)}, table {tuple(table.shape)} and target {tuple(target.shape)} do not fit")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction={reduction!r} is none of 'mean', 'sum', 'none'")
    # A look at the numbers would make a GPU wait and cut a graph that is being compiled in two.
    looked_at = target.device.type == "cpu" and not torch.compiler.is_compiling()
    if looked_at and len(target) and not 0 <= int(target.min()) <= int(target.max()) < len(table):
        raise ValueError(f"targets {int(target.min())}..{int(target.max())} outside the {len(table)} items")
    dtype, width = torch.promote_types(z.dtype, table.dtype), z.shape[1]
    most = widest(dtype)
    unsupported = "" if width <= most else f"d={width}, and it takes {dtype} up to d={most}"
    if chosen_path("catalogue_cross_entropy", ("torch", "triton"), z, unsupported) == "triton":
        from kernels.catalogue_cross_entropy.triton_path import catalogue_cross_entropy_triton

        return catalogue_cross_entropy_triton(z, table, target, scale, cosine, reduction)
    return catalogue_cross_entropy_torch(z, table, target, scale, cosine, reduction)
