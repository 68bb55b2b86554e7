"""GC-SAN's self-attention block with its attention as operators of torch; the dense maps are torch's own products."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from kernels.item_rows.distinct import add_to_rows
from kernels.session_attention import backward, forward, last_row
from kernels.session_attention.torch_path import after_attention
from kernels.session_attention.weights import SessionAttentionWeights


def session_attention_triton(
    rows: torch.Tensor,
    offsets: torch.Tensor,
    weights: SessionAttentionWeights,
    num_heads: int,
    causal: bool,
    last_only: bool,
) -> torch.Tensor:
    """Same meaning as ``session_attention_reference``."""
    if last_only:
        # The last row sees all rows of its session, causal or not.
        attended, last, *_ = last_forward(rows, offsets, weights.query_key_value, weights.query_key_value_bias, num_heads)
        filled = (offsets.diff() > 0)[:, None]
        return torch.where(filled, after_attention(attended, last, weights), 0.0)
    projected = functional.linear(rows, weights.query_key_value, weights.query_key_value_bias)
    places = torch.arange(rows.shape[0], device=rows.device)
    session = torch.searchsorted(offsets[1:], places, right=True)
    begins, ends = offsets.index_select(0, session), offsets.index_select(0, session + 1)
    return after_attention(attention_forward(projected, begins, ends, num_heads, causal)[0], rows, weights)


@torch.library.custom_op("llmgr::session_attention_forward", mutates_args=())
def attention_forward(
    projected: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor, num_heads: int, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attended rows, [T, d], and log-sum-exps, [heads, T], from queries, keys and values, [T, 3d]."""
    return forward.launch(projected.contiguous(), begins, ends, num_heads, causal)


@torch.library.custom_op("llmgr::session_attention_backward", mutates_args=())
def attention_backward(
    grad: torch.Tensor,
    projected: torch.Tensor,
    begins: torch.Tensor,
    ends: torch.Tensor,
    attended: torch.Tensor,
    lse: torch.Tensor,
    causal: bool,
) -> torch.Tensor:
    """Gradient of queries, keys and values, [T, 3d]."""
    return backward.launch(grad, projected.contiguous(), begins, ends, attended, lse, causal)


@torch.library.custom_op("llmgr::session_attention_last_forward", mutates_args=())
def last_forward(
    rows: torch.Tensor, offsets: torch.Tensor, maps: torch.Tensor, biases: torch.Tensor, num_heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attended last rows and last rows, [B, d]; and for the backward pass moved queries, pooled rows, log-sum-exps.

    With one query a session the key map moves to the query, <W_q x + b_q, W_k y + b_k> = <W_k^T (W_q x + b_q), y> plus a number
    that the softmax drops, and the value map behind the sum: no product runs over all T rows. An empty session attends to
    nothing; its last row is zero.
    """
    last = _last_rows(rows, offsets)
    query_map, key_maps, value_maps = _maps(maps, num_heads)
    d = rows.shape[1]
    queries = torch.addmm(biases[:d], last, query_map.T) * (d // num_heads) ** -0.5
    moved = torch.bmm(_by_head(queries, num_heads), key_maps).transpose(0, 1).contiguous()
    pooled, lse = last_row.launch_forward(rows.contiguous(), offsets, moved)
    attended = torch.bmm(pooled.transpose(0, 1), value_maps.mT).transpose(0, 1).reshape(last.shape) + biases[2 * d :]
    return attended, last, moved, pooled, lse


@torch.library.custom_op("llmgr::session_attention_last_backward", mutates_args=())
def last_backward(
    grad_attended: torch.Tensor,
    grad_last: torch.Tensor,
    rows: torch.Tensor,
    offsets: torch.Tensor,
    maps: torch.Tensor,
    biases: torch.Tensor,
    last: torch.Tensor,
    moved: torch.Tensor,
    pooled: torch.Tensor,
    lse: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the rows, [T, d], of the maps, [3d, d], and of the biases, [3d]."""
    (_, num_heads, d), dtype = moved.shape, rows.dtype
    query_map, key_maps, value_maps = _maps(maps, num_heads)
    scale = (d // num_heads) ** -0.5
    by_head = _by_head(grad_attended, num_heads)
    grad_pooled = torch.bmm(by_head, value_maps).transpose(0, 1).contiguous()
    grad_rows, grad_moved = last_row.launch_backward(grad_pooled, rows.contiguous(), offsets, moved, pooled, lse)
    moved_back = grad_moved.transpose(0, 1)
    grad_queries = torch.bmm(moved_back, key_maps.mT).transpose(0, 1).reshape(last.shape) * scale
    queries = torch.addmm(biases[:d], last, query_map.T) * scale
    grad_maps = torch.cat(
        [
            grad_queries.T @ last,
            torch.bmm(_by_head(queries, num_heads).mT, moved_back).view(d, d),
            torch.bmm(by_head.mT, pooled.transpose(0, 1)).view(d, d),
        ]
    )
    # A bias of the keys shifts all scores of a query alike.
    grad_biases = torch.cat(
        [grad_queries.sum(dim=0), torch.zeros(d, dtype=dtype, device=rows.device), grad_attended.sum(dim=0)]
    )
    add_to_rows(grad_rows, _last_places(offsets), torch.addmm(grad_last, grad_queries, query_map))
    return grad_rows, grad_maps, grad_biases


def _maps(maps: torch.Tensor, num_heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """W_q [d, d], and W_k, W_v a head, [heads, width, d]."""
    d = maps.shape[1]
    return maps[:d], maps[d : 2 * d].view(num_heads, -1, d), maps[2 * d :].view(num_heads, -1, d)


def _by_head(rows: torch.Tensor, num_heads: int) -> torch.Tensor:
    """[B, d] -> [heads, B, width]."""
    return rows.view(len(rows), num_heads, rows.shape[1] // num_heads).transpose(0, 1)


def _last_places(offsets: torch.Tensor) -> torch.Tensor:
    """int64 [B], the last row of each session, -1 for an empty one."""
    return torch.where(offsets.diff() > 0, offsets[1:] - 1, -1)


def _last_rows(rows: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """[B, d], zeros for an empty session."""
    places = _last_places(offsets)
    if len(rows) == 0:
        return torch.zeros(len(places), rows.shape[1], dtype=rows.dtype, device=rows.device)
    return rows.index_select(0, places.clamp(min=0)).masked_fill_((places < 0)[:, None], 0.0)


@attention_forward.register_fake
def _(
    projected: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor, num_heads: int, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = projected.shape
    wide = torch.promote_types(projected.dtype, torch.float32)
    return projected.new_empty(rows, columns // 3), projected.new_empty(num_heads, rows, dtype=wide)


@attention_backward.register_fake
def _(
    grad: torch.Tensor,
    projected: torch.Tensor,
    begins: torch.Tensor,
    ends: torch.Tensor,
    attended: torch.Tensor,
    lse: torch.Tensor,
    causal: bool,
) -> torch.Tensor:
    return projected.new_empty(projected.shape)


@last_forward.register_fake
def _(
    rows: torch.Tensor, offsets: torch.Tensor, maps: torch.Tensor, biases: torch.Tensor, num_heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    sessions, d = offsets.shape[0] - 1, rows.shape[1]
    each, moved = rows.new_empty(sessions, d), rows.new_empty(sessions, num_heads, d)
    lse = rows.new_empty(sessions, num_heads, dtype=torch.promote_types(rows.dtype, torch.float32))
    return each, torch.empty_like(each), moved, torch.empty_like(moved), lse


@last_backward.register_fake
def _(
    grad_attended: torch.Tensor,
    grad_last: torch.Tensor,
    rows: torch.Tensor,
    offsets: torch.Tensor,
    maps: torch.Tensor,
    biases: torch.Tensor,
    last: torch.Tensor,
    moved: torch.Tensor,
    pooled: torch.Tensor,
    lse: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return rows.new_empty(rows.shape), maps.new_empty(maps.shape), biases.new_empty(biases.shape)


def _save_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    projected, begins, ends, _, ctx.causal = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(projected, begins, ends, *output)


def _attention_gradients(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
    return attention_backward(grad, *ctx.saved_tensors, ctx.causal), None, None, None, None


def _save_last(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(*inputs[:4], *output[1:])


def _last_gradients(ctx: Any, grad_attended: torch.Tensor, grad_last: torch.Tensor, *_: torch.Tensor) -> tuple[Any, ...]:
    grad_rows, grad_maps, grad_biases = last_backward(grad_attended.contiguous(), grad_last.contiguous(), *ctx.saved_tensors)
    return grad_rows, None, grad_maps, grad_biases, None


attention_forward.register_autograd(_attention_gradients, setup_context=_save_attention)
last_forward.register_autograd(_last_gradients, setup_context=_save_last)
