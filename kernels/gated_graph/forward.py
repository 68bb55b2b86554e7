"""The gated layers forward: whole sessions in tiles of 64 nodes, all L layers in one launch."""

from __future__ import annotations

from itertools import pairwise

import torch
import triton
import triton.language as tl

from kernels.gated_graph.gates import gates
from kernels.gated_graph.launch import STEP, constants
from kernels.gated_graph.tile import block_rows, load_degrees, load_rows, store_rows, tile_edges
from kernels.gated_graph.wide import launch_wide_means


@triton.jit  # type: ignore[untyped-decorator]
def run_layers(
    nodes_ptr: tl.tensor,
    out_ptr: tl.tensor,
    states_ptr: tl.tensor,
    means_ptr: tl.tensor,
    maps_ptr: tl.tensor,
    biases_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    planes_ptr: tl.tensor,
    degrees_ptr: tl.tensor,
    num_nodes: tl.tensor,
    plane_words: tl.tensor,
    num_planes: tl.tensor,
    num_layers: tl.tensor,
    width: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """x' = n + z (x - n), L times, for the block of rows that ``blocks_ptr`` tells; returns where the last states stand.

    Between layers the states go through memory (they are the backward pass's input, and stay in the cache) in the dtype of
    the nodes.
    """
    layer_cells = num_nodes.to(tl.int64) * D
    row, filled = block_rows(blocks_ptr, TILE)
    edges_in, edges_out = tile_edges(
        planes_ptr, plane_words, num_planes, row, filled, TILE, WIDE, nodes_ptr.dtype.element_ty, ACC
    )  # fmt: skip
    source_ptr = nodes_ptr
    layer = num_layers * 0
    while layer < num_layers:
        # Read anew, so that addresses do not live from layer to layer: fp32 takes all registers of a thread.
        row, filled = block_rows(blocks_ptr, TILE)
        degree_in, degree_out = load_degrees(degrees_ptr, row, filled, ACC)
        target_ptr = out_ptr
        if layer < num_layers - 1:
            target_ptr = states_ptr + layer * layer_cells
        for column in range(0, D, COLUMNS):
            _, z, n, _ = gates(
                source_ptr, means_ptr, maps_ptr, biases_ptr, row, filled, edges_in, edges_out, degree_in, degree_out,
                column, width, D, TILE, COLUMNS, STEP, WIDE, False, ACC, PRECISION,
            )  # fmt: skip
            x = load_rows(source_ptr, row, filled, column, D, COLUMNS).to(ACC)
            store_rows(target_ptr, row, filled, column, n + z * (x - n), D, COLUMNS)
        # What follows reads rows that other threads of this program have written.
        tl.debug_barrier()
        source_ptr = target_ptr
        layer += 1
    return source_ptr


@triton.jit(do_not_specialize=["num_nodes", "plane_words", "num_planes", "num_layers", "width"])  # type: ignore[untyped-decorator]
def gated_layers_forward_kernel(
    nodes_ptr: tl.tensor,
    out_ptr: tl.tensor,
    states_ptr: tl.tensor,
    means_ptr: tl.tensor,
    maps_ptr: tl.tensor,
    biases_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    planes_ptr: tl.tensor,
    degrees_ptr: tl.tensor,
    num_nodes: tl.tensor,
    plane_words: tl.tensor,
    num_planes: tl.tensor,
    num_layers: tl.tensor,
    width: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """L layers for one tile of whole sessions, or one layer for one block of a WIDE session."""
    run_layers(
        nodes_ptr, out_ptr, states_ptr, means_ptr, maps_ptr, biases_ptr,
        blocks_ptr + tl.program_id(0).to(tl.int64) * (5 if WIDE else 2), planes_ptr, degrees_ptr,
        num_nodes, plane_words, num_planes, num_layers, width, D, TILE, COLUMNS, STEP, WIDE, ACC, PRECISION,
    )  # fmt: skip


def launch_forward(
    nodes: torch.Tensor,
    maps: torch.Tensor,
    biases: torch.Tensor,
    tile_offsets: torch.Tensor,
    wide_blocks: torch.Tensor,
    planes: torch.Tensor,
    degrees: torch.Tensor,
    num_layers: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One launch for all tiles and layers; where there are wide sessions, two more for each layer.

    Args:
        nodes: [N, d], contiguous.
        maps, biases: ``FoldedGraphWeights``.
        tile_offsets, wide_blocks, planes, degrees: ``SessionTiles``.
        num_layers: L >= 1.

    Returns:
        States after the last layer [N, d], and those after each layer before it [L - 1, N, d].
    """
    num_nodes, d = nodes.shape
    out = torch.empty_like(nodes)
    states = nodes.new_empty(num_layers - 1, num_nodes, d)
    sizes = (num_nodes, planes[0].numel(), planes.shape[0])
    shared = constants(d, nodes.dtype)
    with torch.cuda.device_of(nodes):  # type: ignore[no-untyped-call]
        if len(tile_offsets):
            gated_layers_forward_kernel[(len(tile_offsets),)](
                nodes, out, states, nodes, maps, biases, tile_offsets, planes, degrees, *sizes, num_layers, d,
                WIDE=False, STEP=STEP, num_warps=4, num_stages=1, **shared,
            )  # fmt: skip
        if len(wide_blocks):
            launch_wide_layers(nodes, out, states, maps, biases, wide_blocks, planes, degrees)
    return out, states


def launch_wide_layers(
    nodes: torch.Tensor,
    out: torch.Tensor,
    states: torch.Tensor,
    maps: torch.Tensor,
    biases: torch.Tensor,
    wide_blocks: torch.Tensor,
    planes: torch.Tensor,
    degrees: torch.Tensor,
) -> None:
    """The layers of wide sessions one by one, each first the means, then the gates; into ``out`` and ``states``."""
    num_nodes, d = nodes.shape
    means = nodes.new_empty(num_nodes, 2, d)
    for source, target in pairwise([nodes, *states, out]):
        launch_wide_means(source, means, wide_blocks, planes, degrees)
        gated_layers_forward_kernel[(len(wide_blocks),)](
            source, target, states, means, maps, biases, wide_blocks, planes, degrees,
            num_nodes, planes[0].numel(), planes.shape[0], 1, d,
            WIDE=True, STEP=STEP, num_warps=4, num_stages=1, **constants(d, nodes.dtype),
        )  # fmt: skip
