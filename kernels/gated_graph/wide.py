"""Products with the edges of wide sessions, which do not fit a tile: means forward, their transpose backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gated_graph.launch import constants
from kernels.gated_graph.tile import block_rows, edge_product, edges_between, load_degrees, load_rows, store_rows


@triton.jit(do_not_specialize=["plane_words", "num_planes"])  # type: ignore[untyped-decorator]
def wide_edges_kernel(
    left_ptr: tl.tensor,
    right_ptr: tl.tensor,
    out_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    planes_ptr: tl.tensor,
    degrees_ptr: tl.tensor,
    plane_words: tl.tensor,
    num_planes: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    MEAN: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """For one block of rows of a wide session, one part of the columns, and all blocks that its edges may reach:

    out[:, 0] = incoming edges @ left / incoming degree,  out[:, 1] = outgoing edges @ right / outgoing degree    if MEAN
    out += incoming edges @ left + outgoing edges @ right                                                         otherwise
    """
    blocks_ptr += 5 * tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS
    row, filled = block_rows(blocks_ptr, TILE)
    session_first = tl.load(blocks_ptr + 2)
    session_end = tl.load(blocks_ptr + 3)
    first_cell = tl.load(blocks_ptr + 4)
    plane_words = plane_words.to(tl.int64)
    blocks = (session_end - session_first + TILE - 1) // TILE
    own_block = (tl.load(blocks_ptr) - session_first) // TILE
    dtype = left_ptr.dtype.element_ty
    arriving = tl.zeros((TILE, COLUMNS), dtype=ACC)
    leaving = tl.zeros((TILE, COLUMNS), dtype=ACC)
    block = own_block * 0
    while block < blocks:
        other = session_first + block * TILE + tl.arange(0, TILE)
        present = other < session_end
        cell = first_cell + (other - session_first) * blocks + own_block
        edges = edges_between(planes_ptr, plane_words, num_planes, cell, present, False, TILE, ACC).to(dtype)
        arriving += edge_product(edges, load_rows(left_ptr, other, present, column, D, COLUMNS), PRECISION, ACC)
        cell = first_cell + (row - session_first) * blocks + block
        edges = edges_between(planes_ptr, plane_words, num_planes, cell, filled, True, TILE, ACC).to(dtype)
        leaving += edge_product(edges, load_rows(right_ptr, other, present, column, D, COLUMNS), PRECISION, ACC)
        block += 1
    if MEAN:
        degree_in, degree_out = load_degrees(degrees_ptr, row, filled, ACC)
        store_rows(out_ptr, row * 2, filled, column, arriving / tl.maximum(degree_in, 1.0), D, COLUMNS)
        store_rows(out_ptr + D, row * 2, filled, column, leaving / tl.maximum(degree_out, 1.0), D, COLUMNS)
    else:
        before = load_rows(out_ptr, row, filled, column, D, COLUMNS).to(ACC)
        store_rows(out_ptr, row, filled, column, before + arriving + leaving, D, COLUMNS)


def launch_wide_means(
    nodes: torch.Tensor, means: torch.Tensor, wide_blocks: torch.Tensor, planes: torch.Tensor, degrees: torch.Tensor
) -> None:
    """Write the means over both kinds of edges of the nodes in wide sessions into ``means`` [N, 2, d]."""
    _launch(nodes, nodes, means, wide_blocks, planes, degrees, mean=True)


def launch_wide_sums(
    left: torch.Tensor,
    right: torch.Tensor,
    out: torch.Tensor,
    wide_blocks: torch.Tensor,
    planes: torch.Tensor,
    degrees: torch.Tensor,
) -> None:
    """Add incoming edges @ left + outgoing edges @ right, all [N, d], to the rows of ``out`` in wide sessions."""
    _launch(left, right, out, wide_blocks, planes, degrees, mean=False)


def _launch(
    left: torch.Tensor,
    right: torch.Tensor,
    out: torch.Tensor,
    wide_blocks: torch.Tensor,
    planes: torch.Tensor,
    degrees: torch.Tensor,
    mean: bool,
) -> None:
    shared = constants(left.shape[1], left.dtype)
    grid = (len(wide_blocks), -(-left.shape[1] // shared["COLUMNS"]))
    wide_edges_kernel[grid](
        left, right, out, wide_blocks, planes, degrees, planes[0].numel(), planes.shape[0],
        MEAN=mean, num_warps=8, num_stages=1, **shared,
    )  # fmt: skip
