"""The Triton kernel as an operator of torch."""

from __future__ import annotations

import torch

from kernels.target_rank.forward import rank_targets


@torch.library.custom_op("llmgr::target_rank", mutates_args=())
def _target_rank(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, cosine: bool) -> torch.Tensor:
    return rank_targets(z, table, target, cosine)


@_target_rank.register_fake
def _(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, cosine: bool) -> torch.Tensor:
    return torch.empty_like(target)


def target_rank_triton(z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, cosine: bool = False) -> torch.Tensor:
    """Same meaning as ``target_rank_reference``; scores in float32 from factors of the inputs' dtype."""
    if len(z) == 0:
        return torch.empty_like(target)
    ranks: torch.Tensor = _target_rank(z.contiguous(), table.contiguous(), target.contiguous(), cosine)
    return ranks
