"""The gated layers and W_p in one launch, rows stored where a language model reads them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gated_graph.forward import launch_wide_layers, run_layers
from kernels.gated_graph.launch import STEP, constants
from kernels.gated_graph.tile import block_rows, load_rows, product

CHUNK = 64
# Twice the multiprocessors of an H100 or H200: with fewer tiles, several programs share a tile's columns.
PROGRAMS = 264


@triton.jit(
    do_not_specialize=[
        "num_nodes", "plane_words", "num_planes", "num_layers", "width", "num_columns", "num_prompts", "prompt_length", "chunks"
    ]
)  # type: ignore[untyped-decorator]  # fmt: skip
def gated_project_forward_kernel(
    nodes_ptr: tl.tensor,
    hidden_ptr: tl.tensor,
    states_ptr: tl.tensor,
    maps_ptr: tl.tensor,
    biases_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    planes_ptr: tl.tensor,
    degrees_ptr: tl.tensor,
    projection_ptr: tl.tensor,
    out_ptr: tl.tensor,
    rows_ptr: tl.tensor,
    positions_ptr: tl.tensor,
    num_nodes: tl.tensor,
    plane_words: tl.tensor,
    num_planes: tl.tensor,
    num_layers: tl.tensor,
    width: tl.tensor,
    num_columns: tl.tensor,
    num_prompts: tl.tensor,
    prompt_length: tl.tensor,
    chunks: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDE: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """out[rows[i], positions[i]] = W_p x_i for the nodes of one tile, after its layers, in one run of ``chunks`` column chunks.

    Programs that share a tile each run its layers, and write the same states: cheaper than a second launch. The layers of
    WIDE sessions have run before; here ``nodes`` are their last states. A row outside the prompts is left out.
    """
    blocks_ptr += tl.program_id(0).to(tl.int64) * (5 if WIDE else 2)
    if WIDE:
        source_ptr = nodes_ptr
    else:
        source_ptr = run_layers(
            nodes_ptr, hidden_ptr, states_ptr, nodes_ptr, maps_ptr, biases_ptr, blocks_ptr, planes_ptr, degrees_ptr,
            num_nodes, plane_words, num_planes, num_layers, width, D, TILE, COLUMNS, STEP, WIDE, ACC, PRECISION,
        )  # fmt: skip
    node, filled = block_rows(blocks_ptr, TILE)
    row = tl.load(rows_ptr + node, mask=filled, other=-1)
    position = tl.load(positions_ptr + node, mask=filled, other=-1)
    placed = (row >= 0) & (row < num_prompts) & (position >= 0) & (position < prompt_length)
    cell = (row * prompt_length + position) * num_columns
    chunk = tl.program_id(1) * chunks
    last = chunk + chunks
    while chunk < last:
        column = chunk * CHUNK + tl.arange(0, CHUNK)
        inside = column < num_columns
        total = tl.zeros((TILE, CHUNK), dtype=ACC)
        weight_ptr = projection_ptr + column.to(tl.int64)[None, :] * D + tl.arange(0, STEP)[:, None]
        k = width * 0
        while k < width:
            x = load_rows(source_ptr, node, filled, k, D, STEP)
            weight = tl.load(weight_ptr, mask=inside[None, :], other=0.0)
            total = product(x, weight, total, PRECISION, ACC)
            weight_ptr += STEP
            k += STEP
        to = out_ptr + cell[:, None] + column[None, :]
        tl.store(to, total.to(out_ptr.dtype.element_ty), mask=placed[:, None] & inside[None, :])
        chunk += 1


def column_parts(num_blocks: int, num_columns: int) -> int:
    """Programs that share the columns of a block of rows: a power of two, more where there are few blocks."""
    parts = 1
    while parts * 2 * num_blocks <= PROGRAMS and parts * 2 * CHUNK <= num_columns:
        parts *= 2
    return parts


def launch_project_into(
    nodes: torch.Tensor,
    maps: torch.Tensor,
    biases: torch.Tensor,
    tile_offsets: torch.Tensor,
    wide_blocks: torch.Tensor,
    planes: torch.Tensor,
    degrees: torch.Tensor,
    num_layers: int,
    projection: torch.Tensor,
    out: torch.Tensor,
    rows: torch.Tensor,
    positions: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write projected rows into ``out``; one launch for all tiles.

    Args:
        nodes, maps, biases, tile_offsets, wide_blocks, planes, degrees, num_layers: as for ``launch_forward``.
        projection: [D, d], contiguous.
        out: [B, T, D], contiguous; written in place.
        rows, positions: int64 [N].

    Returns:
        States after the last layer [N, d], and those after each layer before it [L - 1, N, d].
    """
    num_nodes, d = nodes.shape
    hidden, states = torch.empty_like(nodes), nodes.new_empty(num_layers - 1, num_nodes, d)
    num_prompts, prompt_length, num_columns = out.shape
    sizes = (num_nodes, planes[0].numel(), planes.shape[0], num_layers, d, num_columns, num_prompts, prompt_length)
    shared = {**constants(d, nodes.dtype), "STEP": STEP, "CHUNK": CHUNK, "num_warps": 4, "num_stages": 1}

    def launch(source: torch.Tensor, blocks: torch.Tensor, wide: bool) -> None:
        parts = column_parts(len(blocks), num_columns)
        chunks = -(-num_columns // (parts * CHUNK))
        gated_project_forward_kernel[(len(blocks), parts)](
            source, hidden, states, maps, biases, blocks, planes, degrees, projection, out, rows, positions,
            *sizes, chunks, WIDE=wide, **shared,
        )  # fmt: skip

    with torch.cuda.device_of(nodes):  # type: ignore[no-untyped-call]
        if len(tile_offsets):
            launch(nodes, tile_offsets, wide=False)
        if len(wide_blocks):
            launch_wide_layers(nodes, hidden, states, maps, biases, wide_blocks, planes, degrees)
            launch(hidden, wide_blocks, wide=True)
    return hidden, states
