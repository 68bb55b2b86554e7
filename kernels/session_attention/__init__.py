"""GC-SAN's self-attention block over ragged sessions."""

from __future__ import annotations

import torch

from kernels.dispatch import chosen_path
from kernels.session_attention.torch_path import session_attention_torch
from kernels.session_attention.weights import SessionAttentionWeights

# What a program of the kernels holds.
WIDEST = 128
MOST_HEADS = 16

__all__ = ["SessionAttentionWeights", "session_attention"]


def session_attention(
    rows: torch.Tensor,
    offsets: torch.Tensor,
    weights: SessionAttentionWeights,
    num_heads: int = 1,
    causal: bool = False,
    last_only: bool = False,
) -> torch.Tensor:
    """Apply one post-norm self-attention block inside each session (GC-SAN, Xu et al. 2019, eq. 8-10).

    Sessions are never padded to the longest of the batch. Stack blocks by calling again; in the last one ``last_only``
    computes the one row that GC-SAN reads out, at a fraction of the cost. The formula stands in
    ``kernels.session_attention.reference``. Dropout is the caller's, around the block.

    Args:
        rows: float [T, d], one row a click (or node), session after session.
        offsets: int64 [B + 1], first row of each session.
        weights: tensors of the dtype of ``rows``.
        num_heads: divides d.
        causal: a row sees only itself and the rows before it.
        last_only: return the last row of each session instead of all rows.

    Returns:
        float [T, d], or [B, d] with ``last_only`` (zeros for an empty session). Differentiable, same result on every run.

    Raises:
        ValueError: shapes do not fit, or the heads do not divide d.
    """
    d = weights.dimension
    if rows.ndim != 2 or rows.shape[1] != d:
        raise ValueError(f"rows are {tuple(rows.shape)}, weights need [T, {d}]")
    if num_heads < 1 or d % num_heads:
        raise ValueError(f"{num_heads} heads do not divide d = {d}")
    widest = d if last_only else d // num_heads
    unsupported = f"{widest} columns are more than {WIDEST}" if widest > WIDEST else ""
    if last_only and num_heads > MOST_HEADS:
        unsupported = f"{num_heads} heads are more than {MOST_HEADS}"
    if chosen_path("session_attention", ("torch", "triton"), rows, unsupported) == "triton":
        from kernels.session_attention.triton_path import session_attention_triton

        return session_attention_triton(rows, offsets, weights, num_heads, causal, last_only)
    return session_attention_torch(rows, offsets, weights, num_heads, causal, last_only)
