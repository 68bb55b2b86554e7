"""The rank of each session's target among all items, without a B x V matrix."""

from __future__ import annotations

import torch

from kernels.catalogue_cross_entropy.tile_sizes import widest
from kernels.dispatch import chosen_path
from kernels.target_rank.torch_path import target_rank_torch

__all__ = ["target_rank"]


def target_rank(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, cosine: bool = False) -> torch.Tensor:
    """How many items score above the target, and one more; an equal score is not above.

        rank_b = 1 + |{v : <z_b, t_v> > <z_b, t_target(b)>}|

    Args:
        z: float [B, d], session vectors.
        table: float [V, d], one row an item.
        target: int64 [B], in 0..V-1; elsewhere on a GPU, where it cannot be refused without waiting, the rank means nothing.
        cosine: divide t_v by its norm first; a vector of norm below 1e-12 counts as zero. The norm of z_b changes no rank.

    Returns:
        int64 [B], from 1 to V; no gradients.

    Raises:
        ValueError: shapes do not fit, or a target outside the catalogue (seen on the CPU only).
    """
    if z.ndim != 2 or table.ndim != 2 or z.shape[1] != table.shape[1] or target.shape != z.shape[:1]:
        raise ValueError(f"z {tuple(z.shape)}, table {tuple(table.shape)} and target {tuple(target.shape)} do not fit")
    looked_at = target.device.type == "cpu" and not torch.compiler.is_compiling()
    if looked_at and len(target) and not 0 <= int(target.min()) <= int(target.max()) < len(table):
        raise ValueError(f"targets {int(target.min())}..{int(target.max())} outside the {len(table)} items")
    dtype, width = torch.promote_types(z.dtype, table.dtype), z.shape[1]
    z, table = z.detach().to(dtype), table.detach().to(dtype)
    unsupported = "" if width <= widest(dtype) else f"d={width}, and it takes {dtype} up to d={widest(dtype)}"
    if chosen_path("target_rank", ("torch", "triton"), z, unsupported) == "triton":
        from kernels.target_rank.triton_path import target_rank_triton

        return target_rank_triton(z, table, target, cosine)
    return target_rank_torch(z, table, target, cosine)
