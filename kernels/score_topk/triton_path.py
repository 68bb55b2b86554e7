"""The scoring kernels as one operator of torch, which torch.compile and a CUDA graph see as a whole."""

from __future__ import annotations

import torch

from kernels.score_topk.forward import launch_score_topk
from kernels.score_topk.ragged import RaggedItems, RaggedScores

Result = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@torch.library.custom_op("llmgr::score_topk", mutates_args=())
def score_topk_op(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude_items: torch.Tensor | None,
    exclude_offsets: torch.Tensor | None,
    candidate_items: torch.Tensor | None,
    candidate_offsets: torch.Tensor | None,
    additive_items: torch.Tensor | None,
    additive_values: torch.Tensor | None,
    additive_offsets: torch.Tensor | None,
    rankable: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``launch_score_topk`` with each ragged list as its tensors; not differentiable."""
    exclude = None if exclude_items is None or exclude_offsets is None else RaggedItems(exclude_items, exclude_offsets)
    candidates = (
        None if candidate_items is None or candidate_offsets is None else RaggedItems(candidate_items, candidate_offsets)
    )
    additive = None
    if additive_items is not None and additive_values is not None and additive_offsets is not None:
        additive = RaggedScores(additive_items, additive_values, additive_offsets)
    return launch_score_topk(z, table, k, exclude, candidates, additive, rankable)


@score_topk_op.register_fake
def _(z: torch.Tensor, table: torch.Tensor, k: int, *lists: torch.Tensor | None) -> Result:
    return (
        z.new_empty(z.shape[0], k, dtype=torch.int64),
        z.new_empty(z.shape[0], k, dtype=torch.float32),
        z.new_empty(z.shape[0], dtype=torch.float32),
    )


def score_topk_triton(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude: RaggedItems | None = None,
    candidates: RaggedItems | None = None,
    additive: RaggedScores | None = None,
    rankable: torch.Tensor | None = None,
) -> Result:
    """Same meaning as ``score_topk_reference``; what the kernels do not take is said by ``kernels.score_topk._unsupported``."""
    lists = (*(exclude or (None, None)), *(candidates or (None, None)), *(additive or (None, None, None)))
    result: Result = score_topk_op(z, table, k, *lists, rankable)
    return result
