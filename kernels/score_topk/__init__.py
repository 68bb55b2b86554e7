"""Scoring of session vectors against the catalogue with top-k, without a B x V matrix."""

from __future__ import annotations

import torch

from kernels.dispatch import FLOATS_OF_TRITON, chosen_path
from kernels.score_topk.launch_plan import LONGEST_RANKING, MOST_ITEMS, WIDEST_ROW
from kernels.score_topk.ragged import RaggedItems, RaggedScores
from kernels.score_topk.torch_path import score_topk_torch

# From here on a score would drown all others in the sums of the kernels, which mark what is excluded by such numbers.
TOO_LARGE_TO_ADD = 1e29

__all__ = ["RaggedItems", "RaggedScores", "score_topk"]


def score_topk(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude: RaggedItems | None = None,
    candidates: RaggedItems | None = None,
    additive: RaggedScores | None = None,
    rankable: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The k best items of each session and the log-sum-exp over all items it may get.

        score_bv = <z_b, t_v> + sum of b's additive values of v

    An item is eligible if it is rankable at all, among the session's candidates (all items where ``candidates`` is None; none
    where its list is empty) and not excluded: exclusion goes before candidacy. softmax probability of a returned item:
    ``exp(score - lse)``.
    Equal scores stand by rising item index, and equal rows of the table get equal scores. Not differentiable.

    Args:
        z: float [B, d], session vectors.
        table: float [V, d] (float32, float16, bfloat16 or float64), item rows.
        k: how many; at least 1.
        exclude: items a session must not get.
        candidates: the only items a session may get; repeats count once.
        additive: sparse scores added to the product, of magnitude below 1e29, so neither infinite nor NaN; several of one item
            add up. To take an item out, exclude it.
        rankable: bool [V], items that any session may get; None for all. False for deleted rows and for spare ones of a table
            that grows.

    Returns:
        (ids int64 [B, k], scores [B, k], lse [B]), float32, or float64 if z or the table is; where fewer than k items are
        eligible the rest is -1 and -inf, and where none is the lse is -inf. A NaN in z or the table makes the lse NaN.

    Raises:
        ValueError: shapes do not fit, k < 1, or (for tensors on the CPU) an index outside the table or an additive score
            not below 1e29 in magnitude. On a GPU an index outside the table has no effect, and a session with such a score
            has no defined result.
    """
    if z.ndim != 2 or table.ndim != 2 or z.shape[1] != table.shape[1]:
        raise ValueError(f"z {tuple(z.shape)} and table {tuple(table.shape)} do not fit")
    if rankable is not None and (rankable.shape != table.shape[:1] or rankable.dtype != torch.bool):
        raise ValueError(f"rankable {tuple(rankable.shape)} of {rankable.dtype} is no bool [{len(table)}]")
    if k < 1:
        raise ValueError(f"k={k} is less than 1")
    for name, ragged in (("exclude", exclude), ("candidates", candidates), ("additive", additive)):
        if ragged is None:
            continue
        if len(ragged.offsets) != len(z) + 1:
            raise ValueError(f"{name} has offsets for {len(ragged.offsets) - 1} sessions, z has {len(z)}")
        indices = ragged.indices
        # Reading them would make the host wait for a GPU, where an index outside the table has no effect.
        if indices.device.type != "cpu" or torch.compiler.is_compiling() or len(indices) == 0:
            continue
        if not 0 <= int(indices.min()) <= int(indices.max()) < len(table):
            raise ValueError(f"{name} holds items {int(indices.min())}..{int(indices.max())} outside the {len(table)} rows")
        if isinstance(ragged, RaggedScores) and not bool((ragged.values.abs() < TOO_LARGE_TO_ADD).all()):
            worst = ragged.values[~(ragged.values.abs() < TOO_LARGE_TO_ADD)][0].item()
            raise ValueError(f"additive holds {worst:g}; scores are finite and below {TOO_LARGE_TO_ADD:.0e} in magnitude")
    path = chosen_path("score_topk", ("torch", "triton"), z, _unsupported(z, table, k))
    with torch.no_grad():
        if path == "triton":
            from kernels.score_topk.triton_path import score_topk_triton

            return score_topk_triton(z, table, k, exclude, candidates, additive, rankable)
        return score_topk_torch(z, table, k, exclude, candidates, additive, rankable)


def _unsupported(z: torch.Tensor, table: torch.Tensor, k: int) -> str:
    """Why the kernels cannot take a call; empty where they can."""
    if z.dtype not in FLOATS_OF_TRITON or table.dtype not in FLOATS_OF_TRITON:
        return f"it takes no {z.dtype} x {table.dtype}: a score and an item share 64 bits"
    if k > LONGEST_RANKING:
        return f"k={k} is more than {LONGEST_RANKING}"
    if z.shape[1] > WIDEST_ROW:
        return f"rows of {z.shape[1]} numbers are longer than {WIDEST_ROW}"
    if len(table) > MOST_ITEMS:
        return f"{len(table)} items are more than {MOST_ITEMS}"
    return ""
