"""From the gradient of a layer's result to that of its gates, and from there to that of what the gates read."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gated_graph.gates import gates
from kernels.gated_graph.tile import block_rows, load_degrees, load_map, load_rows, product, store_rows


@triton.jit  # type: ignore[untyped-decorator]
def store_gate_gradients(
    nodes_ptr: tl.tensor,
    means_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    pre_ptr: tl.tensor,
    direct_ptr: tl.tensor,
    maps_ptr: tl.tensor,
    biases_ptr: tl.tensor,
    blocks_ptr: tl.tensor,
    degrees_ptr: tl.tensor,
    edges_in: tl.tensor,
    edges_out: tl.tensor,
    width: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Recompute the gates of x' = n + z (x - n), and write the gradients before their activations, with g that of x':

        dn = g (1 - z) (1 - n^2),   dz = g (x - n) z (1 - z),   dh = dn r,   dr = dn h r (1 - r)

    into ``pre`` as columns r, z, n, h; and g z, what reaches x directly, into ``direct``.
    """
    row, filled = block_rows(blocks_ptr, TILE)
    degree_in, degree_out = load_degrees(degrees_ptr, row, filled, ACC)
    for column in range(0, D, COLUMNS):
        r, z, n, h = gates(
            nodes_ptr, means_ptr, maps_ptr, biases_ptr, row, filled, edges_in, edges_out, degree_in, degree_out,
            column, width, D, TILE, COLUMNS, STEP, WIDE, not WIDE, ACC, PRECISION,
        )  # fmt: skip
        # Read anew, so that addresses do not live through the products above: they would take the registers of the gates.
        own_row, own_filled = block_rows(blocks_ptr, TILE)
        grad = load_rows(grad_ptr, own_row, own_filled, column, D, COLUMNS).to(ACC)
        store_rows(direct_ptr, own_row, own_filled, column, grad * z, D, COLUMNS)
        x = load_rows(nodes_ptr, own_row, own_filled, column, D, COLUMNS).to(ACC)
        store_rows(pre_ptr + 1 * D, own_row * 4, own_filled, column, grad * (x - n) * z * (1 - z), D, COLUMNS)
        candidate = grad * (1 - z) * (1 - n * n)
        store_rows(pre_ptr + 2 * D, own_row * 4, own_filled, column, candidate, D, COLUMNS)
        store_rows(pre_ptr + 3 * D, own_row * 4, own_filled, column, candidate * r, D, COLUMNS)
        store_rows(pre_ptr, own_row * 4, own_filled, column, candidate * h * r * (1 - r), D, COLUMNS)


@triton.jit  # type: ignore[untyped-decorator]
def input_gradients(
    pre_ptr: tl.tensor,
    maps_ptr: tl.tensor,
    row: tl.tensor,
    filled: tl.tensor,
    first_column: tl.tensor,
    width: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Gradients of (mean over incoming edges, mean over outgoing edges, x), columns ``first_column`` on, through the gates.

    C_in,r^T dr + C_in,z^T dz + C_in,n^T dn,   C_out likewise,   W_hh,r^T dr + W_hh,z^T dz + W_hh,n^T dh
    """
    mean_in = tl.zeros((TILE, COLUMNS), dtype=ACC)
    mean_out = tl.zeros((TILE, COLUMNS), dtype=ACC)
    direct = tl.zeros((TILE, COLUMNS), dtype=ACC)
    column = first_column + tl.arange(0, COLUMNS)
    step = tl.arange(0, STEP)
    cells = maps_ptr + step[:, None] * D + column[None, :]
    k = width * 0
    while k < width:
        grad = load_rows(pre_ptr, row * 4, filled, k, D, STEP)
        mean_in = product(grad, load_map(cells, 0, D), mean_in, PRECISION, ACC)
        mean_out = product(grad, load_map(cells, 3, D), mean_out, PRECISION, ACC)
        direct = product(grad, load_map(cells, 6, D), direct, PRECISION, ACC)
        grad = load_rows(pre_ptr + 1 * D, row * 4, filled, k, D, STEP)
        mean_in = product(grad, load_map(cells, 1, D), mean_in, PRECISION, ACC)
        mean_out = product(grad, load_map(cells, 4, D), mean_out, PRECISION, ACC)
        direct = product(grad, load_map(cells, 7, D), direct, PRECISION, ACC)
        grad = load_rows(pre_ptr + 2 * D, row * 4, filled, k, D, STEP)
        mean_in = product(grad, load_map(cells, 2, D), mean_in, PRECISION, ACC)
        mean_out = product(grad, load_map(cells, 5, D), mean_out, PRECISION, ACC)
        grad = load_rows(pre_ptr + 3 * D, row * 4, filled, k, D, STEP)
        direct = product(grad, load_map(cells, 8, D), direct, PRECISION, ACC)
        cells += STEP * D
        k += STEP
    return mean_in, mean_out, direct
