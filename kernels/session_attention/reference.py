"""GC-SAN's self-attention block as its formula reads."""

from __future__ import annotations

import torch
from torch.nn import functional

from kernels.session_attention.weights import SessionAttentionWeights

NORM_EPSILON = 1e-12


def session_attention_reference(
    rows: torch.Tensor,
    offsets: torch.Tensor,
    weights: SessionAttentionWeights,
    num_heads: int = 1,
    causal: bool = False,
    last_only: bool = False,
) -> torch.Tensor:
    """One session at a time (GC-SAN, Xu et al. 2019, eq. 8-10, with the post-norms of RecBole's version).

    Q, K, V = x W_q^T + b_q, ...                        per head of width d / heads
    A = softmax(Q K^T / sqrt(d / heads)) V              causal: a row sees itself and what stands before it
    h = norm_1(A W_o^T + b_o + x)
    y = norm_2(W_outer relu(W_inner h + b_inner) + b_outer + h)
    """
    d = weights.dimension
    outputs = []
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        x = rows[begin:end]
        n = len(x)
        if n == 0:
            outputs.append(x.new_zeros(1 if last_only else 0, d))
            continue
        q, k, v = (x @ weights.query_key_value.T + weights.query_key_value_bias).chunk(3, dim=1)
        q, k, v = (part.reshape(n, num_heads, d // num_heads).transpose(0, 1) for part in (q, k, v))
        scores = q @ k.transpose(1, 2) / (d // num_heads) ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1), float("-inf"))
        attended = (torch.softmax(scores, dim=2) @ v).transpose(0, 1).reshape(n, d)
        h = attended @ weights.output.T + weights.output_bias + x
        h = functional.layer_norm(h, (d,), weights.attention_norm[0], weights.attention_norm[1], NORM_EPSILON)
        y = torch.relu(h @ weights.inner.T + weights.inner_bias) @ weights.outer.T + weights.outer_bias + h
        y = functional.layer_norm(y, (d,), weights.feed_forward_norm[0], weights.feed_forward_norm[1], NORM_EPSILON)
        outputs.append(y[-1:] if last_only else y)
    return torch.cat(outputs) if outputs else rows.new_zeros(0, d)
