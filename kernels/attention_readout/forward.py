"""The attention readout in Triton: one launch, sixteen sessions a program."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

SESSIONS = 16


@triton.jit  # type: ignore[untyped-decorator]
def load_map(
    map_ptr: tl.tensor, row_stride: tl.constexpr, first_column: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr
) -> tl.tensor:
    """W of d columns of a map, [BLOCK_D, BLOCK_D] with zeros beyond d."""
    place = tl.arange(0, BLOCK_D)
    inside = (place < D)[:, None] & (place < D)[None, :]
    return tl.load(map_ptr + place[:, None] * row_stride + first_column + place[None, :], mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def session_bounds(
    offsets_ptr: tl.tensor, last_node_ptr: tl.tensor, group: tl.tensor, num_sessions: tl.tensor, SESSIONS: tl.constexpr
) -> tl.tensor:
    """The first node of a group (int64), and from there on: begin, end and last click of its sessions (int32).

    Sessions past the last one are empty; the last click of an empty session is negative. Counting from the first node leaves
    64-bit numbers to scalars, which halves the registers of every mask and address.
    """
    session = group * SESSIONS + tl.arange(0, SESSIONS)
    exists = session < num_sessions
    first = tl.load(offsets_ptr + group * SESSIONS)
    begin = tl.load(offsets_ptr + session, mask=exists, other=0)
    end = tl.load(offsets_ptr + session + 1, mask=exists, other=0)
    last = tl.load(last_node_ptr + session, mask=exists, other=-1)
    begin = tl.where(exists, begin - first, 0).to(tl.int32)
    end = tl.where(exists, end - first, 0).to(tl.int32)
    return first, begin, end, tl.where(last >= 0, last - first, -1).to(tl.int32)


@triton.jit  # type: ignore[untyped-decorator]
def queries(x_last: tl.tensor, of_last: tl.tensor, bias: tl.tensor, INPUT_PRECISION: tl.constexpr) -> tl.tensor:
    """W_1 x_last + c of each session of a group."""
    return tl.dot(x_last, tl.trans(of_last), input_precision=INPUT_PRECISION, out_dtype=bias.dtype) + bias[None, :]


@triton.jit  # type: ignore[untyped-decorator]
def hidden_of_nodes(
    x: tl.tensor, member: tl.tensor, query: tl.tensor, of_node: tl.tensor, INPUT_PRECISION: tl.constexpr
) -> tl.tensor:
    """h_i = sigmoid(W_2 x_i + query of the session of i); the query is spread by a product with the 0/1 matrix of members."""
    spread = tl.dot(member.to(query.dtype), query, input_precision=INPUT_PRECISION, out_dtype=query.dtype)
    return tl.sigmoid(tl.dot(x, tl.trans(of_node), spread, input_precision=INPUT_PRECISION, out_dtype=query.dtype))


@triton.jit(do_not_specialize=["num_sessions"])  # type: ignore[untyped-decorator]
def attention_readout_fwd_kernel(
    nodes_ptr: tl.tensor,
    node_offsets_ptr: tl.tensor,
    last_node_ptr: tl.tensor,
    node_clicks_ptr: tl.tensor,
    of_last_ptr: tl.tensor,
    of_node_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    score_ptr: tl.tensor,
    output_ptr: tl.tensor,
    output_bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    joined_ptr: tl.tensor,
    num_sessions: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILE: tl.constexpr,
    SESSIONS: tl.constexpr,
    WIDE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """z_s of one group of sessions, whose nodes stream by in tiles.

    With P_is = alpha_i clicks_i where node i belongs to session s, and 0 elsewhere, the attended rows are P^T x.
    """
    dtype = nodes_ptr.dtype.element_ty
    group = tl.program_id(0).to(tl.int64)
    first, begin, end, last = session_bounds(node_offsets_ptr, last_node_ptr, group, num_sessions, SESSIONS)
    column = tl.arange(0, BLOCK_D)
    within = column < D
    kept = (last >= 0)[:, None] & within[None, :]
    x_last = tl.load(nodes_ptr + first * D + (last[:, None] * D + column[None, :]), mask=kept, other=0.0)
    bias = tl.load(bias_ptr + column, mask=within, other=0.0).to(WIDE)
    query = queries(x_last, load_map(of_last_ptr, D, 0, D, BLOCK_D), bias, INPUT_PRECISION)
    of_node = load_map(of_node_ptr, D, 0, D, BLOCK_D)
    score = tl.load(score_ptr + column, mask=within, other=0.0).to(WIDE)

    attended = tl.zeros([SESSIONS, BLOCK_D], dtype=WIDE)
    place = tl.arange(0, TILE)
    start = tl.zeros([], dtype=tl.int32)
    stop = tl.max(end, axis=0)
    while start < stop:
        node = start + place
        member = (node[:, None] >= begin[None, :]) & (node[:, None] < end[None, :])
        inside = (node < stop)[:, None] & within[None, :]
        x = tl.load(nodes_ptr + (first + start) * D + (place[:, None] * D + column[None, :]), mask=inside, other=0.0)
        hidden = hidden_of_nodes(x, member, query, of_node, INPUT_PRECISION)
        clicks = tl.load(node_clicks_ptr + first + node, mask=node < stop, other=0.0).to(WIDE)
        alpha = tl.sum(hidden * score[None, :], axis=1) * clicks
        share = tl.where(member, alpha[:, None], 0.0).to(dtype)
        attended += tl.dot(tl.trans(share), x, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        start += TILE

    attended = attended.to(dtype)
    of_attended = load_map(output_ptr, 2 * D, 0, D, BLOCK_D)
    z = tl.dot(attended, tl.trans(of_attended), input_precision=INPUT_PRECISION, out_dtype=WIDE)
    of_last_half = load_map(output_ptr, 2 * D, D, D, BLOCK_D)
    z += tl.dot(x_last, tl.trans(of_last_half), input_precision=INPUT_PRECISION, out_dtype=WIDE)
    z += tl.load(output_bias_ptr + column, mask=within, other=0.0).to(WIDE)[None, :]
    session = tl.arange(0, SESSIONS)
    written = (group * SESSIONS + session < num_sessions)[:, None] & within[None, :]
    row = session[:, None] * D + column[None, :]
    tl.store(out_ptr + group * SESSIONS * D + row, tl.where(kept, z, 0.0).to(dtype), mask=written)
    joined_ptr += group * SESSIONS * 2 * D
    pair = session[:, None] * (2 * D) + column[None, :]
    tl.store(joined_ptr + pair, attended, mask=written)
    tl.store(joined_ptr + D + pair, x_last, mask=written)


def block_width(d: int) -> int:
    """Columns of a tile: the power of two that holds d, at least what a product needs."""
    return max(16, int(triton.next_power_of_2(d)))


def shape_of_program(dtype: torch.dtype) -> tuple[int, int]:
    """Nodes that a program looks at together, and its warps: float32 is multiplied in three parts, which takes registers."""
    return (64, 4) if dtype.itemsize == 2 else (32, 8)


def launch(
    nodes: torch.Tensor,
    node_offsets: torch.Tensor,
    last_node: torch.Tensor,
    node_clicks: torch.Tensor,
    weights: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """z, [B, d], and [attended ; x_last], [B, 2d], of the tensors of a SessionGraph and of ReadoutWeights."""
    sessions, d = len(last_node), nodes.shape[1]
    out = torch.empty(sessions, d, dtype=nodes.dtype, device=nodes.device)
    joined = torch.empty(sessions, 2 * d, dtype=nodes.dtype, device=nodes.device)
    if sessions == 0:
        return out, joined
    tile, warps = shape_of_program(nodes.dtype)
    last, node, bias, score, output, output_bias = [tensor.contiguous() for tensor in weights]
    with torch.cuda.device_of(nodes):  # type: ignore[no-untyped-call]
        attention_readout_fwd_kernel[(triton.cdiv(sessions, SESSIONS),)](
            nodes.contiguous(),
            node_offsets,
            last_node,
            node_clicks,
            last,
            node,
            bias,
            score,
            output,
            output_bias,
            out,
            joined,
            sessions,
            D=d,
            BLOCK_D=block_width(d),
            TILE=tile,
            SESSIONS=SESSIONS,
            WIDE=tl.float64 if nodes.dtype == torch.float64 else tl.float32,
            INPUT_PRECISION="tf32x3",
            num_warps=warps,
        )
    return out, joined
