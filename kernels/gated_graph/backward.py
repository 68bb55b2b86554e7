"""The gated layers backward: gates recomputed from the layers' inputs, in the same tiles, with nothing added atomically."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gated_graph.gate_gradients import input_gradients, store_gate_gradients
from kernels.gated_graph.launch import STEP, constants, product_constants
from kernels.gated_graph.tile import block_rows, edge_product, load_degrees, load_rows, store_rows, tile_edges
from kernels.gated_graph.wide import launch_wide_means, launch_wide_sums


@triton.jit(do_not_specialize=["num_nodes", "plane_words", "num_planes", "last_layer", "first_layer", "width"])  # type: ignore[untyped-decorator]
def gated_layers_backward_kernel(
    nodes_ptr: tl.tensor,
    states_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    nodes_grad_ptr: tl.tensor,
    between_ptr: tl.tensor,
    pre_ptr: tl.tensor,
    means_ptr: tl.tensor,
    maps_ptr: tl.tensor,
    biases_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    planes_ptr: tl.tensor,
    degrees_ptr: tl.tensor,
    num_nodes: tl.tensor,
    plane_words: tl.tensor,
    num_planes: tl.tensor,
    last_layer: tl.tensor,
    first_layer: tl.tensor,
    width: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    GATES: tl.constexpr,
    INPUTS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Layers ``last_layer`` to ``first_layer`` of one tile. What arrives over an edge forward leaves over it backward: with
    A_in, A_out the edges of the tile and m, m' the degrees,

        dx = g z + W_hh^T (dr, dz, dh) + A_out (C_in^T (dr, dz, dn) / m) + A_in (C_out^T (dr, dz, dn) / m')

    GATES writes down (dr, dz, dn, dh) and g z, INPUTS the rest; together they are one launch for all layers. The gradient
    between two layers goes to ``nodes_grad`` and ``between`` in turns, and so ends in the former.
    """
    blocks_ptr += 2 * tl.program_id(0).to(tl.int64)
    row, filled = block_rows(blocks_ptr, TILE)
    dtype = nodes_ptr.dtype.element_ty
    edges_in, edges_out = tile_edges(planes_ptr, plane_words, num_planes, row, filled, TILE, False, dtype, ACC)
    layer_cells = num_nodes.to(tl.int64) * D
    layer = last_layer
    while layer >= first_layer:
        target_ptr = nodes_grad_ptr
        if layer % 2 == 1:
            target_ptr = between_ptr
        layer_pre_ptr = pre_ptr + layer * 4 * layer_cells
        if GATES:
            x_ptr = nodes_ptr
            if layer > 0:
                x_ptr = states_ptr + (layer - 1) * layer_cells
            store_gate_gradients(
                x_ptr, means_ptr + layer * 2 * layer_cells, grad_ptr, layer_pre_ptr, target_ptr, maps_ptr, biases_ptr,
                blocks_ptr, degrees_ptr, edges_in, edges_out, width, D, TILE, COLUMNS, STEP, False, ACC, PRECISION,
            )  # fmt: skip
            # What follows reads rows that other threads of this program have written.
            tl.debug_barrier()
        if INPUTS:
            # Read anew, so that addresses do not live from part to part.
            row, filled = block_rows(blocks_ptr, TILE)
            degree_in, degree_out = load_degrees(degrees_ptr, row, filled, ACC)
            for column in range(0, D, COLUMNS):
                mean_in, mean_out, total = input_gradients(
                    layer_pre_ptr, maps_ptr, row, filled, column, width, D, TILE, COLUMNS, STEP, ACC, PRECISION
                )  # fmt: skip
                row, filled = block_rows(blocks_ptr, TILE)
                degree_in, degree_out = load_degrees(degrees_ptr, row, filled, ACC)
                total += edge_product(edges_out, (mean_in / tl.maximum(degree_in, 1.0)).to(dtype), PRECISION, ACC)
                total += edge_product(edges_in, (mean_out / tl.maximum(degree_out, 1.0)).to(dtype), PRECISION, ACC)
                total += load_rows(target_ptr, row, filled, column, D, COLUMNS).to(ACC)
                store_rows(target_ptr, row, filled, column, total, D, COLUMNS)
            tl.debug_barrier()
        grad_ptr = target_ptr
        layer -= 1


@triton.jit(do_not_specialize=["width"])  # type: ignore[untyped-decorator]
def wide_gate_gradients_kernel(
    nodes_ptr: tl.tensor,
    means_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    pre_ptr: tl.tensor,
    target_ptr: tl.tensor,
    maps_ptr: tl.tensor,
    biases_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    degrees_ptr: tl.tensor,
    width: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """``store_gate_gradients`` for one block of a wide session, whose means are there already."""
    blocks_ptr += 5 * tl.program_id(0).to(tl.int64)
    unused = tl.zeros((1, 1), dtype=ACC)
    store_gate_gradients(
        nodes_ptr, means_ptr, grad_ptr, pre_ptr, target_ptr, maps_ptr, biases_ptr,
        blocks_ptr, degrees_ptr, unused, unused, width, D, TILE, COLUMNS, STEP, True, ACC, PRECISION,
    )  # fmt: skip


@triton.jit(do_not_specialize=["width"])  # type: ignore[untyped-decorator]
def wide_input_gradients_kernel(
    pre_ptr: tl.tensor,
    target_ptr: tl.tensor,
    shares_in_ptr: tl.tensor,
    shares_out_ptr: tl.tensor,
    maps_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    degrees_ptr: tl.tensor,
    width: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """``input_gradients`` for one block of a wide session: the part of x is added to its place, those of the means are written
    down, over their degree, for the sums over edges."""
    row, filled = block_rows(blocks_ptr + 5 * tl.program_id(0).to(tl.int64), TILE)
    column = tl.program_id(1) * COLUMNS
    degree_in, degree_out = load_degrees(degrees_ptr, row, filled, ACC)
    mean_in, mean_out, total = input_gradients(
        pre_ptr, maps_ptr, row, filled, column, width, D, TILE, COLUMNS, STEP, ACC, PRECISION
    )  # fmt: skip
    store_rows(shares_in_ptr, row, filled, column, mean_in / tl.maximum(degree_in, 1.0), D, COLUMNS)
    store_rows(shares_out_ptr, row, filled, column, mean_out / tl.maximum(degree_out, 1.0), D, COLUMNS)
    total += load_rows(target_ptr, row, filled, column, D, COLUMNS).to(ACC)
    store_rows(target_ptr, row, filled, column, total, D, COLUMNS)


def launch_backward(
    grad: torch.Tensor,
    nodes: torch.Tensor,
    states: torch.Tensor,
    maps: torch.Tensor,
    biases: torch.Tensor,
    tile_offsets: torch.Tensor,
    wide_blocks: torch.Tensor,
    planes: torch.Tensor,
    degrees: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One launch for all tiles and layers (float32: two a layer), then one product for each kind of weights; wide sessions take
    four more a layer.

    Args:
        grad: [N, d], of the last state; contiguous.
        nodes, maps, biases, tile_offsets, wide_blocks, planes, degrees: as forward.
        states: [L - 1, N, d], what forward returned.

    Returns:
        Gradients of nodes [N, d], maps [9, d, d] and biases [12, d].
    """
    num_nodes, d = nodes.shape
    num_layers = len(states) + 1
    nodes_grad, between = torch.empty_like(nodes), torch.empty_like(nodes)
    pre = nodes.new_empty(num_layers, num_nodes, 4, d)
    means = nodes.new_empty(num_layers, num_nodes, 2, d)
    shared = {**constants(d, nodes.dtype), "STEP": STEP, "num_stages": 1}
    with torch.cuda.device_of(nodes):  # type: ignore[no-untyped-call]
        if len(tile_offsets):
            for last, first, parts in _launches(num_layers, nodes.dtype):
                source = grad if last == num_layers - 1 else between if last % 2 == 0 else nodes_grad
                gated_layers_backward_kernel[(len(tile_offsets),)](
                    nodes, states, source, nodes_grad, between, pre, means, maps, biases, tile_offsets, planes, degrees,
                    num_nodes, planes[0].numel(), planes.shape[0], last, first, d, num_warps=4, **parts, **shared,
                )  # fmt: skip
        if len(wide_blocks):
            shares_in, shares_out = torch.empty_like(nodes), torch.empty_like(nodes)
            products = {**shared, **product_constants(d, nodes.dtype)}
            grid = (len(wide_blocks), d // products["COLUMNS"])
            source = grad
            for layer in reversed(range(num_layers)):
                x = states[layer - 1] if layer else nodes
                target = between if layer % 2 else nodes_grad
                launch_wide_means(x, means[layer], wide_blocks, planes, degrees)
                wide_gate_gradients_kernel[(len(wide_blocks),)](
                    x, means[layer], source, pre[layer], target, maps, biases, wide_blocks, degrees, d, num_warps=4, **shared
                )
                wide_input_gradients_kernel[grid](
                    pre[layer], target, shares_in, shares_out, maps, wide_blocks, degrees, d, **products
                )
                launch_wide_sums(shares_out, shares_in, target, wide_blocks, planes, degrees)
                source = target
    return nodes_grad, *_weight_gradients(pre, means, nodes, states, degrees)


def parts_of_launch(dtype: torch.dtype) -> list[dict[str, bool]]:
    """Both parts in one launch, or one after the other for float32, which has no registers left for both."""
    if dtype in (torch.float32, torch.float64):
        return [{"GATES": True, "INPUTS": False}, {"GATES": False, "INPUTS": True}]
    return [{"GATES": True, "INPUTS": True}]


def _launches(num_layers: int, dtype: torch.dtype) -> list[tuple[int, int, dict[str, bool]]]:
    """(last layer, first layer, parts) of each launch."""
    parts = parts_of_launch(dtype)
    if len(parts) == 1:
        return [(num_layers - 1, 0, parts[0])]
    return [(layer, layer, part) for layer in reversed(range(num_layers)) for part in parts]


def _weight_gradients(
    pre: torch.Tensor, means: torch.Tensor, nodes: torch.Tensor, states: torch.Tensor, degrees: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Products of gate gradients and what the gates read, summed over nodes and layers in the order of a matrix product."""
    num_layers, num_nodes, _, d = pre.shape
    flat = pre.view(num_layers, num_nodes, 4 * d)
    rows = flat.view(-1, 4 * d)
    of_edges = (rows[:, : 3 * d].T @ means.view(-1, 2 * d)).view(3 * d, 2, d).transpose(0, 1)
    hidden_rows = torch.cat([rows[:, : 2 * d], rows[:, 3 * d :]], dim=1).view(num_layers, num_nodes, 3 * d)
    of_nodes = hidden_rows[0].T @ nodes
    if num_layers > 1:
        of_nodes = of_nodes.addmm(hidden_rows[1:].reshape(-1, 3 * d).T, states.view(-1, d))
    maps_grad = torch.cat([of_edges.reshape(6, d, d), of_nodes.view(3, d, d)])
    present = torch.cat([torch.ones_like(degrees[:, :1]), degrees > 0], dim=1).to(pre.dtype)
    biases_grad = torch.matmul(present.T, flat).sum(0).view(3, 4, d).transpose(0, 1).reshape(12, d)
    return maps_grad, biases_grad
