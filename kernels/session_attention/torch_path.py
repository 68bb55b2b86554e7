"""GC-SAN's self-attention block: dense parts on flat rows, attention in blocks of sessions of like length."""

from __future__ import annotations

import torch
from torch.nn import functional

from kernels.padding import length_classes, rearranged
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
    """Same meaning as ``session_attention_reference``, without a loop over sessions."""
    if not last_only:
        if len(rows) == 0:
            return rows
        projected = functional.linear(rows, weights.query_key_value, weights.query_key_value_bias)
        return after_attention(_attend(projected, offsets, num_heads, causal), rows, weights)
    lengths = offsets.diff()
    filled = torch.nonzero(lengths > 0).squeeze(1)
    result = rows.new_zeros(len(lengths), weights.dimension)
    if len(filled) == 0:
        return result
    last = rows.index_select(0, offsets[1:][filled] - 1)
    attended = _attend_last(last, rows, torch.cat([offsets[:1], offsets[1:][filled]]), weights, num_heads)
    # The last row sees all rows of its session, causal or not.
    read_out = after_attention(attended, last, weights)
    return read_out if len(filled) == len(lengths) else result.index_put((filled,), read_out)


def after_attention(attended: torch.Tensor, rows: torch.Tensor, weights: SessionAttentionWeights) -> torch.Tensor:
    """The block behind its attention: output map, residual and norm, feed-forward part, residual and norm."""
    d = weights.dimension
    hidden = functional.linear(attended, weights.output, weights.output_bias) + rows
    hidden = functional.layer_norm(hidden, (d,), weights.attention_norm[0], weights.attention_norm[1], NORM_EPSILON)
    inner = torch.relu(functional.linear(hidden, weights.inner, weights.inner_bias))
    outer = functional.linear(inner, weights.outer, weights.outer_bias) + hidden
    return functional.layer_norm(outer, (d,), weights.feed_forward_norm[0], weights.feed_forward_norm[1], NORM_EPSILON)


def _attend_last(
    last: torch.Tensor, rows: torch.Tensor, offsets: torch.Tensor, weights: SessionAttentionWeights, num_heads: int
) -> torch.Tensor:
    """Attention of the last row of each (filled) session alone: [B, d].

    With one query a session the key map moves to the query, <W_q x + b_q, W_k y + b_k> = <W_k^T (W_q x + b_q), y> plus a number
    that the softmax drops, and the value map behind the sum, so that no product runs over all T rows.
    """
    d = weights.dimension
    width = d // num_heads
    segment = torch.repeat_interleave(torch.arange(len(last), device=rows.device), offsets.diff(), output_size=len(rows))
    query = functional.linear(last, weights.query_key_value[:d], weights.query_key_value_bias[:d])
    key_map = weights.query_key_value[d : 2 * d].view(num_heads, width, d)
    value_map = weights.query_key_value[2 * d :].view(num_heads, width, d)
    heads = []
    for head in range(num_heads):
        moved = (query[:, head * width : (head + 1) * width] * width**-0.5) @ key_map[head]
        scores = torch.linalg.vecdot(rows, segment_expand(moved, segment, offsets))
        probabilities = _segment_softmax(scores, segment, offsets)
        heads.append(segment_sum(rows * probabilities[:, None], segment, offsets) @ value_map[head].T)
    return torch.cat(heads, dim=1) + weights.query_key_value_bias[2 * d :]


def _segment_softmax(scores: torch.Tensor, segment: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    maximum = scores.new_full((len(offsets) - 1,), float("-inf"))
    maximum = maximum.scatter_reduce(0, segment, scores.detach(), reduce="amax")
    exponentials = torch.exp(scores - maximum[segment])[:, None]
    return (exponentials / segment_expand(segment_sum(exponentials, segment, offsets), segment, offsets)).squeeze(1)


def _attend(projected: torch.Tensor, offsets: torch.Tensor, num_heads: int, causal: bool) -> torch.Tensor:
    """Attention of all rows: [T, d] from their queries, keys and values [T, 3d].

    Each class of sessions of like length is padded to its longest: a long session costs the short ones nothing.
    """
    d = projected.shape[1] // 3
    lengths = offsets.diff()
    places, shapes = [], []
    for members, width in length_classes(lengths):
        step = torch.arange(width, device=projected.device)
        present = step < lengths[members][:, None]
        places.append(torch.where(present, offsets[:-1][members][:, None] + step, -1).view(-1))
        shapes.append((len(members), width))
    place = torch.cat(places)
    slots = torch.nonzero(place >= 0).squeeze(1)
    slot_of_row = torch.empty_like(slots)
    slot_of_row[place[slots]] = slots
    padded = rearranged(projected, place, slot_of_row)
    parts = []
    sizes = [count * width for count, width in shapes]
    for (count, width), rows, own in zip(shapes, torch.split(padded, sizes), torch.split(place, sizes), strict=True):
        query, key, value = rows.view(count, width, 3, num_heads, d // num_heads).permute(2, 0, 3, 1, 4)
        visible = (own >= 0).view(count, 1, 1, width)
        if causal:
            visible = visible & torch.ones(width, width, dtype=torch.bool, device=own.device).tril()
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        parts.append(attended.transpose(1, 2).reshape(count * width, d))
    return rearranged(torch.cat(parts), slot_of_row, place)
