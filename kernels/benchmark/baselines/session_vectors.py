"""Readout and self-attention block as others run them: padded, or gathered and scattered."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from kernels.attention_readout.weights import ReadoutWeights
from kernels.session_attention.reference import NORM_EPSILON
from kernels.session_attention.weights import SessionAttentionWeights
from kernels.session_graph import SessionGraph


def readout_index_add(
    nodes: torch.Tensor,
    last_node: torch.Tensor,
    node_session: torch.Tensor,
    node_clicks: torch.Tensor,
    weights: ReadoutWeights,
) -> torch.Tensor:
    """SR-GNN's readout with a gather and an ``index_add``; sessions must not be empty."""
    last = nodes.index_select(0, last_node)
    query = functional.linear(last, weights.last)
    hidden = torch.sigmoid(query.index_select(0, node_session) + functional.linear(nodes, weights.node, weights.bias))
    alpha = (hidden * weights.score).sum(dim=1, keepdim=True) * node_clicks.to(nodes)[:, None]
    attended = torch.zeros_like(last).index_add(0, node_session, alpha * nodes)
    return functional.linear(torch.cat([attended, last], dim=1), weights.output, weights.output_bias)


class PaddedNodes(NamedTuple):
    """Rows of sessions padded to the longest, built before the clock starts.

    Attributes:
        row_at: int64 [B, n], row; 0 in the padding.
        mask: bool [B, n], whether there is one.
        place: int64 [T], place of each row among the B * n.
    """

    row_at: torch.Tensor
    mask: torch.Tensor
    place: torch.Tensor


def padded_nodes(offsets: torch.Tensor) -> PaddedNodes:
    """Pad ragged rows."""
    sizes = offsets.diff()
    columns = torch.arange(int(sizes.max()), device=offsets.device)
    mask = columns < sizes[:, None]
    row_at = (offsets[:-1, None] + columns).masked_fill_(~mask, 0)
    return PaddedNodes(row_at, mask, torch.nonzero(mask.view(-1)).squeeze(1))


def readout_padded(nodes: torch.Tensor, padded: PaddedNodes, graph: SessionGraph, weights: ReadoutWeights) -> torch.Tensor:
    """SR-GNN's readout on sessions padded to the longest, as in its published code."""
    x = functional.embedding(padded.row_at, nodes)
    clicks = graph.node_clicks.to(nodes)[padded.row_at] * padded.mask
    last = nodes.index_select(0, graph.last_node)
    query = functional.linear(last, weights.last)[:, None]
    alpha = torch.sigmoid(query + functional.linear(x, weights.node, weights.bias)) @ weights.score
    attended = ((alpha * clicks)[:, :, None] * x).sum(dim=1)
    return functional.linear(torch.cat([attended, last], dim=1), weights.output, weights.output_bias)


def attention_padded(
    rows: torch.Tensor, padded: PaddedNodes, weights: SessionAttentionWeights, num_heads: int, fused: bool
) -> torch.Tensor:
    """GC-SAN's block on padded sessions: softmax spelt out with a mask, or torch's fused attention."""
    d = weights.dimension
    x = functional.embedding(padded.row_at, rows)
    batch, longest = padded.mask.shape
    projected = functional.linear(x, weights.query_key_value, weights.query_key_value_bias)
    q, k, v = projected.view(batch, longest, 3, num_heads, d // num_heads).permute(2, 0, 3, 1, 4)
    if fused:
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=padded.mask[:, None, None])
    else:
        scores = q @ k.transpose(2, 3) / (d // num_heads) ** 0.5
        probabilities = torch.softmax(scores.masked_fill(~padded.mask[:, None, None], float("-inf")), dim=3)
        attended = probabilities @ v
    attended = attended.transpose(1, 2).reshape(batch, longest, d)
    hidden = functional.linear(attended, weights.output, weights.output_bias) + x
    hidden = functional.layer_norm(hidden, (d,), weights.attention_norm[0], weights.attention_norm[1], NORM_EPSILON)
    inner = torch.relu(functional.linear(hidden, weights.inner, weights.inner_bias))
    outer = functional.linear(inner, weights.outer, weights.outer_bias) + hidden
    result = functional.layer_norm(outer, (d,), weights.feed_forward_norm[0], weights.feed_forward_norm[1], NORM_EPSILON)
    return result.reshape(-1, d).index_select(0, padded.place)
