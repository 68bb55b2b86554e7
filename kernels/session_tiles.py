"""Sessions packed into tiles of nodes, with their edges as bit masks: what a GPU program works on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

TILE_NODES = 64

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SessionTiles:
    """Runs of whole sessions, each run at most ``TILE_NODES`` nodes, and the edges inside them as masks.

    A *cell* is one 64-bit mask (two words, low bits first): the edges from one node to 64 nodes in a row. A session of at
    most 64 nodes is *narrow*: it stands whole in a tile, and the cell of its node u, number u, has bit j set if the edge from
    u to node j of the tile exists. A *wide* session is cut into blocks of 64 rows, the last one shorter; the cell of its row
    u for its block c is number ``first cell + u * blocks + c``. Incoming edges are the same bits read the other way round.

    Plane p has the bits of the edges whose weight has the binary digit 2^p: one plane where every edge weighs 1.

    Attributes:
        tile_offsets: int64 [tiles, 2], first node and end of each tile; nodes of wide sessions are in none.
        wide_blocks: int64 [K, 5], for each block of rows of a wide session: its first node and end, its session's first node
            and end, and the session's first cell.
        planes: int32 [P, cells, 2]. The cells of all nodes come first, those of nodes in wide sessions empty; then the cells
            of wide sessions.
        degrees: int32 [N, 2], what arrives at each node and what leaves it.
    """

    tile_offsets: torch.Tensor
    wide_blocks: torch.Tensor
    planes: torch.Tensor
    degrees: torch.Tensor

    @property
    def num_tiles(self) -> int:
        return len(self.tile_offsets)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SessionTiles:
        """The same tiles on another device."""
        moved = {field.name: getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self)}
        return SessionTiles(**moved)


def pack_tiles(
    node_offsets: torch.Tensor, edge_source: torch.Tensor, edge_target: torch.Tensor, edge_weight: torch.Tensor | None = None
) -> SessionTiles:
    """Pack sessions in their order, each tile taking as many as fit, and write the edge masks.

    Args:
        node_offsets: int64 [B + 1] of a SessionGraph.
        edge_source: int64 [E], distinct edges, sorted by (source, target).
        edge_target: int64 [E].
        edge_weight: float32 [E], multiplicities; 1 each if not given.

    Returns:
        Tiles on the device of ``node_offsets``; the work is done on the CPU.

    Raises:
        ValueError: a multiplicity is no whole number from 1 to 2^31 - 1.
    """
    offsets = node_offsets.cpu().numpy()
    source, target = edge_source.cpu().numpy(), edge_target.cpu().numpy()
    multiplicity = None if edge_weight is None else _whole(edge_weight.cpu().numpy())
    num_nodes = int(offsets[-1])
    sizes = np.diff(offsets)
    wide = np.flatnonzero(sizes > TILE_NODES)
    tiles = _tile_offsets(offsets, wide)

    base = np.repeat(tiles[:, 0], tiles[:, 1] - tiles[:, 0])
    if len(wide):
        in_wide = np.repeat(sizes > TILE_NODES, sizes)
        in_tile, base = base, np.empty(num_nodes, dtype=np.int64)
        base[~in_wide] = in_tile
        base[in_wide] = np.repeat(offsets[wide], sizes[wide])
        place = target - base[target]
        cell, num_cells, blocks = _wide_cells(offsets, wide, in_wide, source, place)
        place &= TILE_NODES - 1
    else:
        place = target - base[target]
        cell, num_cells, blocks = source, num_nodes, np.zeros((0, 5), dtype=np.int64)

    degrees = np.empty((num_nodes, 2), dtype=np.int32)
    degrees[:, 0] = np.bincount(target, weights=multiplicity, minlength=num_nodes)
    degrees[:, 1] = np.bincount(source, weights=multiplicity, minlength=num_nodes)
    arrays = {
        "tile_offsets": tiles,
        "wide_blocks": blocks,
        "planes": _planes(place, multiplicity, cell, num_cells),
        "degrees": degrees,
    }
    return SessionTiles(**{name: torch.from_numpy(array).to(node_offsets.device) for name, array in arrays.items()})


def _planes(place: Ints, multiplicity: npt.NDArray[np.int32] | None, cell: Ints, num_cells: int) -> npt.NDArray[np.int32]:
    """int32 [P, cells, 2]; edges stand sorted by cell, and ``place`` is the bit of each."""
    ends_cell = np.empty(len(cell), dtype=np.bool_)
    ends_cell[-1:] = True
    np.not_equal(cell[1:], cell[:-1], out=ends_cell[:-1])
    last = np.flatnonzero(ends_cell)
    filled = cell[last]
    bit = np.left_shift(np.uint64(1), place.view(np.uint64))
    digits = 1 if multiplicity is None else int(multiplicity.max(initial=1)).bit_length()
    words = np.zeros((digits, num_cells), dtype="<u8")
    for digit, plane in enumerate(words):
        chosen = bit if multiplicity is None else np.where(multiplicity >> digit & 1, bit, np.uint64(0))
        # Sums wrap at 2^64, so the difference of two running sums is exact, and several times faster than reduceat.
        plane[filled] = np.diff(np.cumsum(chosen)[last], prepend=np.uint64(0))
    return words.view("<i4").reshape(digits, num_cells, 2)


def _whole(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    if len(weight) and not (weight.min() >= 1 and weight.max() < 2**31 and np.array_equal(np.trunc(weight), weight)):
        raise ValueError("a multiplicity is no whole number from 1 to 2^31 - 1")
    return weight.astype(np.int32)


def _wide_cells(
    offsets: Ints,
    wide: Ints,
    in_wide: npt.NDArray[np.bool_],
    source: Ints,
    place: Ints,
) -> tuple[Ints, int, Ints]:
    """(cell of each edge, number of cells, ``wide_blocks``); ``place`` is that of an edge's target in its tile or session."""
    num_nodes = int(offsets[-1])
    first, end = offsets[wide], offsets[wide + 1]
    count = -(-(end - first) // TILE_NODES)
    cells = np.concatenate([[num_nodes], num_nodes + np.cumsum((end - first) * count)])
    row_cell = np.arange(num_nodes)
    row = np.arange((end - first).sum()) - np.repeat(np.cumsum(end - first) - (end - first), end - first)
    row_cell[in_wide] = np.repeat(cells[:-1], end - first) + row * np.repeat(count, end - first)
    block = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    session_first, session_end = np.repeat(first, count), np.repeat(end, count)
    block_first = session_first + block * TILE_NODES
    block_end = np.minimum(block_first + TILE_NODES, session_end)
    blocks = np.stack([block_first, block_end, session_first, session_end, np.repeat(cells[:-1], count)], axis=1)
    return row_cell[source] + place // TILE_NODES, int(cells[-1]), np.ascontiguousarray(blocks)


def _tile_offsets(offsets: Ints, wide: Ints) -> Ints:
    """int64 [tiles, 2]: greedy runs of narrow sessions, each at most TILE_NODES nodes."""
    num_sessions = len(offsets) - 1
    reach = np.searchsorted(offsets, offsets[:-1] + TILE_NODES, side="right") - 1
    if len(wide):
        # A run also ends where a wide session begins; a wide session is a run of its own, dropped below.
        barrier = np.append(wide, num_sessions)
        reach = np.minimum(reach, barrier[np.searchsorted(barrier, np.arange(num_sessions))])
        reach[wide] = wide + 1
    following = reach.tolist()
    runs = []
    session = 0
    while session < num_sessions:
        runs.append(session)
        session = following[session]
    first = np.array(runs, dtype=np.int64)
    tiles = np.stack([offsets[first], offsets[reach[first]]], axis=1)
    if len(wide):
        tiles = tiles[~np.isin(first, wide)]
    return np.ascontiguousarray(tiles[tiles[:, 0] < tiles[:, 1]])
