"""The gradients of the attention readout in Triton: one launch over groups of sessions between small dense products."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.attention_readout.forward import SESSIONS, block_width, load_map, session_bounds, shape_of_program, times_map
from kernels.item_rows.distinct import add_to_rows


@triton.jit(do_not_specialize=["num_sessions"])  # type: ignore[untyped-decorator]
def attention_readout_bwd_kernel(
    nodes_ptr: tl.tensor,
    node_offsets_ptr: tl.tensor,
    last_node_ptr: tl.tensor,
    node_clicks_ptr: tl.tensor,
    of_node_ptr: tl.tensor,
    score_ptr: tl.tensor,
    query_ptr: tl.tensor,
    grad_joined_ptr: tl.tensor,
    grad_nodes_ptr: tl.tensor,
    grad_query_ptr: tl.tensor,
    grad_hidden_ptr: tl.tensor,
    grad_score_ptr: tl.tensor,
    num_sessions: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILE: tl.constexpr,
    SESSIONS: tl.constexpr,
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """What flows back to the nodes of one group of sessions; h_i and alpha_i are computed again.

    With the query u_s = W_1 x_last + c and g_s, the gradient of the attended vector:

        d alpha_i = clicks_i <g_s, x_i>        da_i = d alpha_i q h_i (1 - h_i),  h_i = sigmoid(W_2 x_i + u_s)
        dx_i      = alpha_i clicks_i g_s + da_i W_2

    u_s and g_s are read once a node: those of a session stay in the nearest cache, and products with them need no rounding.
    da_i is left a node (dW_2 = da^T x is a dense product), du_s = sum da_i a session, dq = sum d alpha_i h_i a program.
    """
    dtype = nodes_ptr.dtype.element_ty
    group = tl.program_id(0).to(tl.int64)
    first, begin, end, _ = session_bounds(node_offsets_ptr, last_node_ptr, group, num_sessions, SESSIONS)
    column = tl.arange(0, BLOCK_D)
    within = column < D
    score = tl.load(score_ptr + column, mask=within, other=0.0).to(WIDE)
    if STEP == BLOCK_D:
        of_node = load_map(of_node_ptr, D, BLOCK_D)
    nodes_ptr += first * D
    grad_nodes_ptr += first * D
    grad_hidden_ptr += first * D
    query_ptr += group * SESSIONS * D
    grad_joined_ptr += group * SESSIONS * 2 * D

    grad_score = tl.zeros([BLOCK_D], dtype=WIDE)
    grad_query = tl.zeros([SESSIONS, BLOCK_D], dtype=WIDE)
    place = tl.arange(0, TILE)
    cell = place[:, None] * D + column[None, :]
    start = tl.zeros([], dtype=tl.int32)
    stop = tl.max(end, axis=0)
    while start < stop:
        node = start + place
        member = (node[:, None] >= begin[None, :]) & (node[:, None] < end[None, :])
        session = tl.sum(tl.where(member, tl.arange(0, SESSIONS)[None, :], 0), axis=1)
        inside = (node < stop)[:, None] & within[None, :]
        x = tl.load(nodes_ptr + start.to(tl.int64) * D + cell, mask=inside, other=0.0)
        query = tl.load(query_ptr + session[:, None] * D + column[None, :], mask=inside, other=0.0).to(WIDE)
        if STEP == BLOCK_D:
            hidden = tl.dot(x, tl.trans(of_node), query, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        else:
            row_ptr = nodes_ptr + start.to(tl.int64) * D + place * D
            hidden = times_map(query, row_ptr, node < stop, of_node_ptr, 1, D, D, BLOCK_D, STEP, INPUT_PRECISION)
        hidden = tl.sigmoid(hidden)
        clicks = tl.load(node_clicks_ptr + first + node, mask=node < stop, other=0.0).to(WIDE)
        alpha = tl.sum(hidden * score[None, :], axis=1) * clicks
        of_session = session[:, None] * (2 * D) + column[None, :]
        grad_attended = tl.load(grad_joined_ptr + of_session, mask=inside, other=0.0).to(WIDE)
        grad_alpha = tl.sum(grad_attended * x.to(WIDE), axis=1) * clicks
        grad_score += tl.sum(grad_alpha[:, None] * hidden, axis=0)
        grad_hidden = (grad_alpha[:, None] * score[None, :] * hidden * (1.0 - hidden)).to(dtype)
        tl.store(grad_hidden_ptr + start.to(tl.int64) * D + cell, grad_hidden, mask=inside)
        grad_x = alpha[:, None] * grad_attended
        if STEP == BLOCK_D:
            grad_x = tl.dot(grad_hidden, of_node, grad_x, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        else:
            # What other threads of the program have just stored is read again as a factor.
            tl.debug_barrier()
            row_ptr = grad_hidden_ptr + start.to(tl.int64) * D + place * D
            grad_x = times_map(grad_x, row_ptr, node < stop, of_node_ptr, D, 1, D, BLOCK_D, STEP, INPUT_PRECISION)
        tl.store(grad_nodes_ptr + start.to(tl.int64) * D + cell, grad_x.to(dtype), mask=inside)
        sums = tl.trans(member.to(dtype))
        grad_query = tl.dot(sums, grad_hidden, grad_query, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        start += TILE

    row = tl.arange(0, SESSIONS)
    exists = group * SESSIONS + row < num_sessions
    of_group = grad_query_ptr + group * SESSIONS * D + (row[:, None] * D + column[None, :])
    tl.store(of_group, grad_query.to(dtype), mask=exists[:, None] & within[None, :])
    tl.store(grad_score_ptr + group * D + column, grad_score, mask=within)


def launch(
    grad_z: torch.Tensor,
    nodes: torch.Tensor,
    node_offsets: torch.Tensor,
    last_node: torch.Tensor,
    node_clicks: torch.Tensor,
    joined: torch.Tensor,
    weights: list[torch.Tensor],
) -> list[torch.Tensor]:
    """Gradients of the nodes and of the six weights, from dz and what the forward launch left in ``joined``."""
    sessions, d = len(last_node), nodes.shape[1]
    of_last, of_node, bias, score, output, _ = [tensor.contiguous() for tensor in weights]
    groups = triton.cdiv(sessions, SESSIONS)
    nodes, x_last = nodes.contiguous(), joined[:, d:]
    grad_z = grad_z * (last_node >= 0).to(grad_z.dtype)[:, None]
    query = torch.addmm(bias, x_last, of_last.T)
    grad_joined = grad_z @ output
    grad_nodes, grad_hidden = torch.empty_like(nodes), torch.empty_like(nodes)
    grad_query = torch.empty(sessions, d, dtype=nodes.dtype, device=nodes.device)
    wide = torch.promote_types(nodes.dtype, torch.float32)
    grad_score = torch.empty(groups, d, dtype=wide, device=nodes.device)
    tile, warps, step = shape_of_program(nodes.dtype, d)
    if groups:
        with torch.cuda.device_of(nodes):  # type: ignore[no-untyped-call]
            attention_readout_bwd_kernel[(groups,)](
                nodes,
                node_offsets,
                last_node,
                node_clicks,
                of_node,
                score,
                query,
                grad_joined,
                grad_nodes,
                grad_query,
                grad_hidden,
                grad_score,
                sessions,
                D=d,
                BLOCK_D=block_width(d),
                TILE=tile,
                SESSIONS=SESSIONS,
                STEP=step,
                WIDE=tl.float64 if nodes.dtype == torch.float64 else tl.float32,
                INPUT_PRECISION="tf32x3",
                num_warps=warps,
            )
    add_to_rows(grad_nodes, last_node, torch.addmm(grad_joined[:, d:], grad_query, of_last))
    return [
        grad_nodes,
        grad_query.T @ x_last,
        grad_hidden.T @ nodes,
        grad_query.sum(dim=0),
        grad_score.sum(dim=0).to(nodes.dtype),
        grad_z.T @ joined,
        grad_z.sum(dim=0),
    ]
