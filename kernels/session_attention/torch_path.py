"""GC-SAN's self-attention block in plain torch operations, without a loop over sessions."""

from __future__ import annotations

import torch
from torch.nn import functional

from kernels.segments import segment_expand, segment_sum
from kernels.session_attention.reference import NORM_EPSILON
from kernels.session_attention.weights import SessionAttentionWeights


def session_attention_torch(
    rows: torch.Tensor,
    offsets: torch.Tensor,
    weights: SessionAttentionWeights,
    num_heads: int = 1,
    causal: bool = False,
    last_only: bool = False,
) -> torch.Tensor:
    """Same meaning as ``session_attention_reference``."""
    if len(rows) == 0:
        return rows.new_zeros(len(offsets) - 1 if last_only else 0, weights.dimension)
    if not last_only:
        return _after_attention(_every_row(rows, offsets, weights, num_heads, causal), rows, weights)
    filled = offsets[1:] > offsets[:-1]
    last = rows.index_select(0, offsets[1:][filled] - 1)
    answers = _after_attention(_last_rows(rows, last, offsets, filled, weights, num_heads), last, weights)
    if len(last) == len(filled):
        return answers
    return answers.new_zeros(len(filled), weights.dimension).masked_scatter(filled[:, None], answers)


def _last_rows(
    rows: torch.Tensor,
    last: torch.Tensor,
    offsets: torch.Tensor,
    filled: torch.Tensor,
    weights: SessionAttentionWeights,
    num_heads: int,
) -> torch.Tensor:
    """What the last row of each session that has one attends to, float [sessions, d]: a softmax over ragged segments."""
    d = weights.dimension
    width = d // num_heads
    query = functional.linear(last, weights.query_key_value[:d], weights.query_key_value_bias[:d])
    key, value = functional.linear(rows, weights.query_key_value[d:], weights.query_key_value_bias[d:]).chunk(2, dim=1)
    starts = torch.cat([offsets[:-1][filled], offsets[-1:]])
    session = torch.repeat_interleave(torch.arange(len(last), device=rows.device), starts.diff(), output_size=len(rows))
    asked = segment_expand(query, session, starts)
    scores = (asked * key).view(-1, num_heads, width).sum(dim=2) / width**0.5
    with torch.no_grad():
        places = session[:, None].expand_as(scores)
        highest = scores.new_full((len(last), num_heads), float("-inf")).scatter_reduce(0, places, scores, "amax")
    shares = torch.exp(scores - highest.index_select(0, session))
    weighted = (shares[:, :, None] * value.view(-1, num_heads, width)).view(-1, d)
    totals = segment_sum(shares, session, starts)
    attended = segment_sum(weighted, session, starts).view(-1, num_heads, width) / totals[:, :, None]
    return attended.view(-1, d)


def _every_row(
    rows: torch.Tensor, offsets: torch.Tensor, weights: SessionAttentionWeights, num_heads: int, causal: bool
) -> torch.Tensor:
    """What each row attends to, float [T, d]: sessions of like length together, padded to the next power of two."""
    d = weights.dimension
    width = d // num_heads
    projected = functional.linear(rows, weights.query_key_value, weights.query_key_value_bias)
    lengths = offsets.diff()
    attended, taken = [], []
    size, limit = 1, int(lengths.max())
    while size < 2 * limit:
        chosen = torch.nonzero((lengths > size // 2) & (lengths <= size)).squeeze(1)
        if len(chosen):
            place = torch.arange(size, device=rows.device)
            within = place < lengths[chosen][:, None]
            source = torch.where(within, offsets[:-1][chosen][:, None] + place, 0)
            parts = projected[source].view(len(chosen), size, 3, num_heads, width).permute(2, 0, 3, 1, 4)
            allowed = within[:, None, None, :].expand(-1, 1, size, -1)
            if causal:
                allowed = allowed & (place <= place[:, None])
            # Rows past the end of a session have nothing to look at; they look at the first row and are dropped below.
            allowed = allowed | (~within[:, None, :, None] & (place == 0))
            scores = (parts[0] @ parts[1].transpose(2, 3) / width**0.5).masked_fill(~allowed, float("-inf"))
            mixed = (torch.softmax(scores, dim=3) @ parts[2]).transpose(1, 2).reshape(len(chosen), size, d)
            attended.append(mixed[within])
            taken.append(source[within])
        size *= 2
    back = torch.argsort(torch.cat(taken))
    return torch.cat(attended).index_select(0, back)


def _after_attention(attended: torch.Tensor, rows: torch.Tensor, weights: SessionAttentionWeights) -> torch.Tensor:
    """Output map, residual and norm, feed-forward part, residual and norm."""
    d = (weights.dimension,)
    h = functional.linear(attended, weights.output, weights.output_bias) + rows
    h = functional.layer_norm(h, d, weights.attention_norm[0], weights.attention_norm[1], NORM_EPSILON)
    inner = torch.relu(functional.linear(h, weights.inner, weights.inner_bias))
    y = functional.linear(inner, weights.outer, weights.outer_bias) + h
    return functional.layer_norm(y, d, weights.feed_forward_norm[0], weights.feed_forward_norm[1], NORM_EPSILON)
