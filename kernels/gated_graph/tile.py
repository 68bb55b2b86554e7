"""What the gated layer's kernels share: rows, parts of the maps, edges from bit masks, products with both."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def block_rows(
    blocks_ptr: tl.tensor,
    TILE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """(rows of the block whose first node and end stand at ``blocks_ptr``, which of them are in it), both [TILE]."""
    row = tl.load(blocks_ptr) + tl.arange(0, TILE)
    return row, row < tl.load(blocks_ptr + 1)


@triton.jit  # type: ignore[untyped-decorator]
def load_rows(
    base_ptr: tl.tensor,
    row: tl.tensor,
    filled: tl.tensor,
    first_column: tl.tensor,
    D: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> tl.tensor:
    """[TILE, COLUMNS] of a matrix with D columns, from ``first_column`` on; zeros in rows that are not there."""
    column = first_column + tl.arange(0, COLUMNS)
    return tl.load(base_ptr + row[:, None] * D + column[None, :], mask=filled[:, None], other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def store_rows(
    base_ptr: tl.tensor,
    row: tl.tensor,
    filled: tl.tensor,
    first_column: tl.tensor,
    value: tl.tensor,
    D: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """The place ``load_rows`` reads from, written in the dtype it has."""
    column = first_column + tl.arange(0, COLUMNS)
    tl.store(base_ptr + row[:, None] * D + column[None, :], value.to(base_ptr.dtype.element_ty), mask=filled[:, None])


@triton.jit  # type: ignore[untyped-decorator]
def load_map(cells: tl.tensor, block: tl.constexpr, D: tl.constexpr) -> tl.tensor:
    """A part of map number ``block`` of the stacked [9, D, D] maps; ``cells`` is where it stands in the first of them.

    All nine share one block of addresses, a constant apart: nine blocks of them would fill a thread's registers.
    """
    return tl.load(cells + block * D * D)


@triton.jit  # type: ignore[untyped-decorator]
def bias_factor(
    degree_in: tl.tensor,
    degree_out: tl.tensor,
    TILE: tl.constexpr,
    dtype: tl.constexpr,
) -> tl.tensor:
    """[TILE, 16], columns (1, has incoming edges, has outgoing edges, zeros): the left factor of ``load_bias``."""
    column = tl.arange(0, 16)[None, :]
    present = tl.where(column == 1, degree_in, tl.where(column == 2, degree_out, tl.where(column == 0, 1.0, 0.0)))
    return (present > 0).to(dtype)


@triton.jit  # type: ignore[untyped-decorator]
def load_bias(
    cells: tl.tensor,
    gate: tl.constexpr,
    inside: tl.tensor,
    D: tl.constexpr,
) -> tl.tensor:
    """[16, COLUMNS], three rows of biases of a gate, then zeros. As factors of a product they need no registers of their
    own."""
    return tl.load(cells + gate * 3 * D, mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def edges_between(
    planes_ptr: tl.tensor,
    plane_words: tl.tensor,
    num_planes: tl.tensor,
    cell: tl.tensor,
    filled: tl.tensor,
    FROM_ROWS: tl.constexpr,
    TILE: tl.constexpr,
    ACC: tl.constexpr,
) -> tl.tensor:
    """[TILE, TILE] weights of the edges that leave the sources whose masks stand in ``cell``; 0 where there is none.

    Entry (i, j) belongs to source i and bit j if FROM_ROWS, to source j and bit i otherwise: the incoming edges are the
    outgoing ones read the other way round.
    """
    bit = tl.arange(0, TILE)
    weights = tl.zeros((TILE, TILE), dtype=ACC)
    digit = tl.full((1, 1), 1.0, dtype=ACC)
    word_ptr = planes_ptr + 2 * cell
    plane = num_planes * 0
    while plane < num_planes:
        low = tl.load(word_ptr, mask=filled, other=0).to(tl.uint32, bitcast=True)
        high = tl.load(word_ptr + 1, mask=filled, other=0).to(tl.uint32, bitcast=True)
        if FROM_ROWS:
            word = tl.where((bit < 32)[None, :], low[:, None], high[:, None])
            place = (bit % 32)[None, :]
        else:
            word = tl.where((bit < 32)[:, None], low[None, :], high[None, :])
            place = (bit % 32)[:, None]
        weights += ((word >> place.to(tl.uint32)) & 1).to(ACC) * digit
        digit *= 2
        word_ptr += plane_words
        plane += 1
    return weights


@triton.jit  # type: ignore[untyped-decorator]
def tile_edges(
    planes_ptr: tl.tensor,
    plane_words: tl.tensor,
    num_planes: tl.tensor,
    row: tl.tensor,
    filled: tl.tensor,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
    dtype: tl.constexpr,
    ACC: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """(incoming, outgoing) edges inside a tile, both [TILE, TILE]; nothing of use for a WIDE session."""
    if WIDE:
        edges_in = tl.zeros((1, 1), dtype=dtype)
        edges_out = edges_in
    else:
        plane_words = plane_words.to(tl.int64)
        edges_in = edges_between(planes_ptr, plane_words, num_planes, row, filled, False, TILE, ACC).to(dtype)
        edges_out = edges_between(planes_ptr, plane_words, num_planes, row, filled, True, TILE, ACC).to(dtype)
    return edges_in, edges_out


@triton.jit  # type: ignore[untyped-decorator]
def load_degrees(
    degrees_ptr: tl.tensor,
    row: tl.tensor,
    filled: tl.tensor,
    ACC: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """(incoming, outgoing) degree of each row, both [TILE, 1]; 0 outside."""
    arriving = tl.load(degrees_ptr + 2 * row, mask=filled, other=0).to(ACC)[:, None]
    leaving = tl.load(degrees_ptr + 2 * row + 1, mask=filled, other=0).to(ACC)[:, None]
    return arriving, leaving


@triton.jit  # type: ignore[untyped-decorator]
def high_part(
    value: tl.tensor,
) -> tl.tensor:
    """The part of fp32 values that tf32 holds exactly."""
    return (value.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def edge_product(
    edges: tl.tensor,
    factor: tl.tensor,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
) -> tl.tensor:
    """edges @ factor. Small whole numbers are exact in tf32, so only the factor is split for tf32x3."""
    if PRECISION == "tf32x3":
        high = high_part(factor)
        low = tl.dot(edges, factor - high, input_precision="tf32", out_dtype=ACC)
        return tl.dot(edges, high, low, input_precision="tf32", out_dtype=ACC)
    else:  # noqa: RET505 - Triton stops at a return only where both ways have one
        return tl.dot(edges, factor, input_precision=PRECISION, out_dtype=ACC)


@triton.jit  # type: ignore[untyped-decorator]
def product(
    left: tl.tensor,
    right: tl.tensor,
    total: tl.tensor,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
) -> tl.tensor:
    """total + left @ right; tf32x3 written out takes a third of the registers of Triton's own."""
    if PRECISION == "tf32x3":
        left_high = high_part(left)
        right_high = high_part(right)
        total = tl.dot(left - left_high, right_high, total, input_precision="tf32", out_dtype=ACC)
        total = tl.dot(left_high, right - right_high, total, input_precision="tf32", out_dtype=ACC)
        return tl.dot(left_high, right_high, total, input_precision="tf32", out_dtype=ACC)
    else:  # noqa: RET505 - Triton stops at a return only where both ways have one
        return tl.dot(left, right, total, input_precision=PRECISION, out_dtype=ACC)
