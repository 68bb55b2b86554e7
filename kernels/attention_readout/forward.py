"""The attention readout in Triton: one launch, sixteen sessions a program."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

SESSIONS = 16


@triton.jit  # type: ignore[untyped-decorator]
def load_map(map_ptr: tl.tensor, D: tl.constexpr, BLOCK_D: tl.constexpr) -> tl.tensor:
    """A [d, d] map, [BLOCK_D, BLOCK_D] with zeros beyond d."""
    place = tl.arange(0, BLOCK_D)
    inside = (place < D)[:, None] & (place < D)[None, :]
    return tl.load(map_ptr + place[:, None] * D + place[None, :], mask=inside, other=0.0)


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
def times_map(
    total: tl.tensor,
    rows_ptr: tl.tensor,
    there: tl.tensor,
    map_ptr: tl.tensor,
    INPUT_STRIDE: tl.constexpr,
    OUTPUT_STRIDE: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STEP: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> tl.tensor:
    """total + x M, [R, BLOCK_D], for rows x at ``rows_ptr`` [R] and a map M of d inputs and d outputs.

    Both are read STEP inputs at a time, so that at d = 128 neither is ever whole in the registers.
    """
    column = tl.arange(0, BLOCK_D)
    for start in range(0, BLOCK_D, STEP):
        inner = start + tl.arange(0, STEP)
        x = tl.load(rows_ptr[:, None] + inner[None, :], mask=there[:, None] & (inner < D)[None, :], other=0.0)
        cell = map_ptr + inner[:, None] * INPUT_STRIDE + column[None, :] * OUTPUT_STRIDE
        part = tl.load(cell, mask=(inner < D)[:, None] & (column < D)[None, :], other=0.0)
        total = tl.dot(x, part, total, input_precision=INPUT_PRECISION, out_dtype=total.dtype)
    return total


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
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
) -> None:
    """z_s of one group of sessions, whose nodes stream by in tiles.

    With P_is = alpha_i clicks_i where node i belongs to session s, and 0 elsewhere, the attended rows are P^T x. W_2 is held
    while the nodes stream by where STEP is all of it, and else read anew for each tile.
    """
    dtype = nodes_ptr.dtype.element_ty
    group = tl.program_id(0).to(tl.int64)
    first, begin, end, last = session_bounds(node_offsets_ptr, last_node_ptr, group, num_sessions, SESSIONS)
    column = tl.arange(0, BLOCK_D)
    within = column < D
    kept = (last >= 0)[:, None] & within[None, :]
    x_last = tl.load(nodes_ptr + first * D + (last[:, None] * D + column[None, :]), mask=kept, other=0.0)
    bias = tl.load(bias_ptr + column, mask=within, other=0.0).to(WIDE)
    query = tl.zeros([SESSIONS, BLOCK_D], dtype=WIDE) + bias[None, :]
    last_ptr = nodes_ptr + first * D + last * D
    query = times_map(query, last_ptr, last >= 0, of_last_ptr, 1, D, D, BLOCK_D, STEP, INPUT_PRECISION)
    if STEP == BLOCK_D:
        of_node = load_map(of_node_ptr, D, BLOCK_D)
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
        # The query of a node's session, spread by a product with the 0/1 matrix of members.
        hidden = tl.dot(member.to(WIDE), query, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        if STEP == BLOCK_D:
            hidden = tl.dot(x, tl.trans(of_node), hidden, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        else:
            row_ptr = nodes_ptr + (first + start) * D + place * D
            hidden = times_map(hidden, row_ptr, node < stop, of_node_ptr, 1, D, D, BLOCK_D, STEP, INPUT_PRECISION)
        hidden = tl.sigmoid(hidden)
        clicks = tl.load(node_clicks_ptr + first + node, mask=node < stop, other=0.0).to(WIDE)
        alpha = tl.sum(hidden * score[None, :], axis=1) * clicks
        share = tl.where(member, alpha[:, None], 0.0).to(dtype)
        attended += tl.dot(tl.trans(share), x, input_precision=INPUT_PRECISION, out_dtype=WIDE)
        start += TILE

    session = tl.arange(0, SESSIONS)
    exists = group * SESSIONS + session < num_sessions
    written = exists[:, None] & within[None, :]
    joined_ptr += group * SESSIONS * 2 * D + session * (2 * D)
    tl.store(joined_ptr[:, None] + column[None, :], attended.to(dtype), mask=written)
    tl.store(joined_ptr[:, None] + D + column[None, :], x_last, mask=written)
    # What other threads of the program have just stored is read again as a factor.
    tl.debug_barrier()
    z = tl.zeros([SESSIONS, BLOCK_D], dtype=WIDE) + tl.load(output_bias_ptr + column, mask=within, other=0.0).to(WIDE)[None, :]
    z = times_map(z, joined_ptr, exists, output_ptr, 1, 2 * D, D, BLOCK_D, STEP, INPUT_PRECISION)
    z = times_map(z, joined_ptr + D, exists, output_ptr + D, 1, 2 * D, D, BLOCK_D, STEP, INPUT_PRECISION)
    row = session[:, None] * D + column[None, :]
    tl.store(out_ptr + group * SESSIONS * D + row, tl.where(kept, z, 0.0).to(dtype), mask=written)


def block_width(d: int) -> int:
    """Columns of a tile: the power of two that holds d, at least what a product needs."""
    return max(16, int(triton.next_power_of_2(d)))


def shape_of_program(dtype: torch.dtype, d: int) -> tuple[int, int, int]:
    """Nodes that a program looks at together, its warps, and the inputs of a map it reads at a time.

    float32 is multiplied in three parts, which takes registers: a map of 128 x 128 is read anew for each tile, in parts.
    """
    width = block_width(d)
    if dtype.itemsize == 2:
        return (64, 4, width) if width <= 64 else (32, 8, width)
    return 32, 8, width if width <= 64 else 16


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
    tile, warps, step = shape_of_program(nodes.dtype, d)
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
            STEP=step,
            WIDE=tl.float64 if nodes.dtype == torch.float64 else tl.float32,
            INPUT_PRECISION="tf32x3",
            num_warps=warps,
        )
    return out, joined
