"""The gates of one tile, recomputed by the backward pass in the same way."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gated_graph.tile import bias_factor, edge_product, load_bias, load_map, load_rows, product, store_rows


@triton.jit  # type: ignore[untyped-decorator]
def gates(
    nodes_ptr: tl.tensor,
    means_ptr: tl.tensor,
    maps_ptr: tl.tensor,
    biases_ptr: tl.tensor,
    row: tl.tensor,
    filled: tl.tensor,
    edges_in: tl.tensor,
    edges_out: tl.tensor,
    degree_in: tl.tensor,
    degree_out: tl.tensor,
    first_column: tl.tensor,
    width: tl.tensor,
    D: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    WIDE: tl.constexpr,
    SAVE_MEANS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """(r, z, n, h): gates and candidate of columns ``first_column`` on, and h = W_hh,n x + b_hh,n, all [TILE, COLUMNS].

    With C_in, C_out the folded edge maps and the bias of an edge map counting only where there is an edge:

        r = sigmoid(C_in,r mean_in + C_out,r mean_out + W_hh,r x + biases)     z likewise
        n = tanh(C_in,n mean_in + C_out,n mean_out + r h + biases)

    The sum over the inner dimension goes in steps of STEP columns, each with its own means: nothing but the four sums and the
    edges lives through it, so that a thread's registers suffice. The means over a WIDE session's edges are there already;
    others are written down for the gradient if SAVE_MEANS.
    """
    r = tl.zeros((TILE, COLUMNS), dtype=ACC)
    z = tl.zeros((TILE, COLUMNS), dtype=ACC)
    n = tl.zeros((TILE, COLUMNS), dtype=ACC)
    h = tl.zeros((TILE, COLUMNS), dtype=ACC)
    column = first_column + tl.arange(0, COLUMNS)
    step = tl.arange(0, STEP)
    # Rows of a map are outputs: this is the right factor of x W^T.
    cells = maps_ptr + column[None, :] * D + step[:, None]
    k = width * 0
    while k < width:
        x = load_rows(nodes_ptr, row, filled, k, D, STEP)
        if WIDE:
            mean_in = load_rows(means_ptr, row * 2, filled, k, D, STEP)
            mean_out = load_rows(means_ptr + D, row * 2, filled, k, D, STEP)
        else:
            mean_in = edge_product(edges_in, x, PRECISION, ACC)
            mean_in = (mean_in / tl.maximum(degree_in, 1.0)).to(x.dtype)
            mean_out = edge_product(edges_out, x, PRECISION, ACC)
            mean_out = (mean_out / tl.maximum(degree_out, 1.0)).to(x.dtype)
        if SAVE_MEANS:
            store_rows(means_ptr, row * 2, filled, k, mean_in, D, STEP)
            store_rows(means_ptr + D, row * 2, filled, k, mean_out, D, STEP)
        weight = load_map(cells, 6, D)
        r = product(x, weight, r, PRECISION, ACC)
        weight = load_map(cells, 0, D)
        r = product(mean_in, weight, r, PRECISION, ACC)
        weight = load_map(cells, 3, D)
        r = product(mean_out, weight, r, PRECISION, ACC)
        weight = load_map(cells, 7, D)
        z = product(x, weight, z, PRECISION, ACC)
        weight = load_map(cells, 1, D)
        z = product(mean_in, weight, z, PRECISION, ACC)
        weight = load_map(cells, 4, D)
        z = product(mean_out, weight, z, PRECISION, ACC)
        weight = load_map(cells, 8, D)
        h = product(x, weight, h, PRECISION, ACC)
        weight = load_map(cells, 2, D)
        n = product(mean_in, weight, n, PRECISION, ACC)
        weight = load_map(cells, 5, D)
        n = product(mean_out, weight, n, PRECISION, ACC)
        cells += STEP
        k += STEP

    factor = bias_factor(degree_in, degree_out, TILE, nodes_ptr.dtype.element_ty)
    line = tl.arange(0, 16)
    inside = (line < 3)[:, None]
    cells = biases_ptr + line[:, None] * D + column[None, :]
    r = tl.sigmoid(product(factor, load_bias(cells, 0, inside, D), r, PRECISION, ACC))
    z = tl.sigmoid(product(factor, load_bias(cells, 1, inside, D), z, PRECISION, ACC))
    h = product(factor, load_bias(cells, 3, inside, D), h, PRECISION, ACC)
    n = product(factor, load_bias(cells, 2, inside, D), n, PRECISION, ACC)
    # tanh, which Triton has only through a device library that its interpreter lacks.
    return r, z, 2 * tl.sigmoid(2 * (n + r * h)) - 1, h
