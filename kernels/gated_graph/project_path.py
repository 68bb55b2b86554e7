"""Layers and W_p as operators of torch: one that returns a new tensor and has gradients, one that writes in place."""

from __future__ import annotations

from typing import Any

import torch

from kernels.gated_graph.folding import FoldedGraphWeights
from kernels.gated_graph.project import launch_project_into
from kernels.gated_graph.triton_path import gated_layers_backward, padded
from kernels.session_graph import SessionGraph


def _lined_up(rows: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places as the kernel reads them: int64, without strides."""
    return rows.long().contiguous(), positions.long().contiguous()


@torch.library.custom_op("llmgr::gated_project_into", mutates_args=())
def gated_project_into(
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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(a copy of ``out`` with the rows in place, last states, states between layers)."""
    result = out.clone(memory_format=torch.contiguous_format)
    graph = (tile_offsets, wide_blocks, planes, degrees)
    places = _lined_up(rows, positions)
    states = launch_project_into(
        nodes.contiguous(), maps.contiguous(), biases.contiguous(), *graph, num_layers, projection.contiguous(), result, *places
    )
    return result, *states


@torch.library.custom_op("llmgr::gated_project_into_", mutates_args=("out",))
def gated_project_into_(
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
) -> None:
    """Rows into ``out`` itself, which is contiguous; no gradients."""
    graph = (tile_offsets, wide_blocks, planes, degrees)
    places = _lined_up(rows, positions)
    launch_project_into(
        nodes.contiguous(), maps.contiguous(), biases.contiguous(), *graph, num_layers, projection.contiguous(), out, *places
    )


@gated_project_into.register_fake
def _(nodes: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    num_layers, out = rest[6], rest[8]
    return out.new_empty(out.shape), nodes.new_empty(nodes.shape), nodes.new_empty(num_layers - 1, *nodes.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    nodes, maps, biases, tile_offsets, wide_blocks, planes, degrees, _, projection, out, rows, positions = inputs
    _, hidden, states = output
    ctx.save_for_backward(
        nodes, states, maps, biases, tile_offsets, wide_blocks, planes, degrees, hidden, projection, rows, positions
    )
    ctx.out_dtype = out.dtype


def _gradients(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
    """Placed rows are gathered once; their two products are plain matrix products, always summed in the same order."""
    *layers, hidden, projection, rows, positions = ctx.saved_tensors
    rows, positions = _lined_up(rows, positions)
    num_prompts, prompt_length, num_columns = grad.shape
    flat = grad.reshape(-1, num_columns)
    placed = (rows >= 0) & (rows < num_prompts) & (positions >= 0) & (positions < prompt_length)
    place = torch.where(placed, rows * prompt_length + positions, 0)
    projected_grad = torch.where(placed[:, None], flat.index_select(0, place), 0).to(hidden.dtype)
    found = gated_layers_backward(projected_grad @ projection, *layers)
    out_grad = None
    if ctx.needs_input_grad[9]:
        # One more place than there are rows takes the nodes that are placed nowhere, without asking the device how many.
        kept = torch.ones(len(flat) + 1, dtype=torch.bool, device=grad.device)
        kept = kept.index_fill(0, torch.where(placed, place, len(flat)), False)[:-1]
        out_grad = torch.where(kept[:, None], flat, 0).view(grad.shape)
    return (*found, None, None, None, None, None, projected_grad.T @ hidden, out_grad, None, None)


gated_project_into.register_autograd(_gradients, setup_context=_save)


def gated_graph_project_into_triton(
    nodes: torch.Tensor,
    graph: SessionGraph,
    weights: FoldedGraphWeights,
    num_layers: int,
    projection: torch.Tensor,
    out: torch.Tensor,
    rows: torch.Tensor,
    positions: torch.Tensor,
    edge_weights: str,
    in_place: bool,
) -> torch.Tensor:
    """Same meaning as the public function; L >= 1 and N >= 1."""
    tiles = graph.tiles if edge_weights == "binary" else graph.weighted_tiles
    nodes, weights, projection = padded(nodes, weights, projection)
    arguments = (
        nodes, *weights, tiles.tile_offsets, tiles.wide_blocks, tiles.planes, tiles.degrees, num_layers,
        projection, out, rows, positions,
    )  # fmt: skip
    if in_place:
        gated_project_into_(*arguments)
        return out
    result: torch.Tensor = gated_project_into(*arguments)[0]
    return result
