"""Sessions packed into tiles of nodes, with their edges as bit masks: what a GPU program works on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

TILE_NODES = 64


@dataclass(frozen=True, eq=False)
class SessionTiles:
    """Runs of whole sessions, each run at most ``TILE_NODES`` nodes, and the edges inside them as masks.

    A *cell* is one 64-bit mask (two words, low bits first): the edges from one node to 64 nodes in a row. A session of at
    most 64 nodes is *narrow*: it stands whole in a tile, and the cell of its node u, number u, has bit j set if the edge from
    u to node j of the tile exists. A *wide* session is cut into blocks of 64 rows, the last one shorter; the cell of its row
    u for its block c is number ``first cell + u * blocks + c``. Incoming edges are the same bits read the other way round.

    Multiplicities stand in binary: plane p of ``planes`` has the bits of the edges whose multiplicity has the digit 2^p.

    Attributes:
        tile_offsets: int64 [tiles, 2], first node and end of each tile; nodes of wide sessions are in none.
        wide_blocks: int64 [K, 5], for each block of rows of a wide session: its first node and end, its session's first node
            and end, and the session's first cell.
        masks: int32 [1, cells, 2], which edges exist. The cells of nodes in wide sessions come first, empty, as everywhere.
        planes: int32 [P, cells, 2], multiplicities in binary; the same tensor as ``masks`` if all are 1.
        degrees: int32 [N, 2], incoming and outgoing distinct edges of each node.
        weighted_degrees: int32 [N, 2], the same with multiplicity.
    """

    tile_offsets: torch.Tensor
    wide_blocks: torch.Tensor
    masks: torch.Tensor
    planes: torch.Tensor
    degrees: torch.Tensor
    weighted_degrees: torch.Tensor

    @property
    def num_tiles(self) -> int:
        return len(self.tile_offsets)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SessionTiles:
        """The same tiles on another device."""
        moved: dict[int, torch.Tensor] = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            if id(tensor) not in moved:
                moved[id(tensor)] = tensor.to(device, non_blocking=non_blocking)
        return SessionTiles(**{field.name: moved[id(getattr(self, field.name))] for field in fields(self)})


def pack_tiles(
    node_offsets: torch.Tensor, edge_source: torch.Tensor, edge_target: torch.Tensor, edge_weight: torch.Tensor
) -> SessionTiles:
    """Pack sessions in their order, each tile taking as many as fit, and write the edge masks.

    Args:
        node_offsets: int64 [B + 1] of a SessionGraph.
        edge_source: int64 [E], distinct edges, sorted by (source, target).
        edge_target: int64 [E].
        edge_weight: float32 [E], multiplicities.

    Returns:
        Tiles on the device of ``node_offsets``; the work is done on the CPU.

    Raises:
        ValueError: a multiplicity is no whole number from 1 to 2^31 - 1.
    """
    offsets = node_offsets.cpu().numpy()
    source, target = edge_source.cpu().numpy(), edge_target.cpu().numpy()
    weight = edge_weight.cpu().numpy()
    multiplicity = _whole(weight)
    num_nodes = int(offsets[-1])
    sizes = np.diff(offsets)
    wide = np.flatnonzero(sizes > TILE_NODES)
    tiles = _tile_offsets(offsets, wide)

    base = np.zeros(num_nodes, dtype=np.int64)
    in_tile = np.repeat(tiles[:, 0], tiles[:, 1] - tiles[:, 0])
    cell, num_cells, blocks = source, num_nodes, np.zeros((0, 5), dtype=np.int64)
    if len(wide):
        in_wide = np.repeat(sizes > TILE_NODES, sizes)
        base[~in_wide] = in_tile
        base[in_wide] = np.repeat(offsets[wide], sizes[wide])
        place = target - base[target]
        cell, num_cells, blocks = _wide_cells(offsets, wide, in_wide, source, place)
        place &= TILE_NODES - 1
    else:
        base[:] = in_tile
        place = target - base[target]

    bit = np.left_shift(np.uint64(1), place.astype(np.uint64))
    starts = np.flatnonzero(np.diff(cell, prepend=-1)) if len(cell) else cell
    masks = _plane(bit, cell, starts, num_cells)[None]
    degrees = _degrees(source, target, None, num_nodes)
    if (multiplicity == 1).all():
        planes, weighted_degrees = masks, degrees
    else:
        digits = range(int(multiplicity.max()).bit_length())
        planes = np.stack([_plane(np.where(multiplicity >> p & 1, bit, np.uint64(0)), cell, starts, num_cells) for p in digits])
        weighted_degrees = _degrees(source, target, weight, num_nodes)
    as_tensor = {
        id(array): torch.from_numpy(array).to(node_offsets.device) for array in (masks, planes, degrees, weighted_degrees)
    }
    return SessionTiles(
        tile_offsets=torch.from_numpy(tiles).to(node_offsets.device),
        wide_blocks=torch.from_numpy(blocks).to(node_offsets.device),
        masks=as_tensor[id(masks)],
        planes=as_tensor[id(planes)],
        degrees=as_tensor[id(degrees)],
        weighted_degrees=as_tensor[id(weighted_degrees)],
    )


def _whole(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    if len(weight) and not (weight.min() >= 1 and weight.max() < 2**31):
        raise ValueError("a multiplicity is no whole number from 1 to 2^31 - 1")
    multiplicity = weight.astype(np.int32)
    if not np.array_equal(multiplicity, weight):
        raise ValueError("a multiplicity is no whole number from 1 to 2^31 - 1")
    return multiplicity


def _plane(
    bit: npt.NDArray[np.uint64], cell: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], num_cells: int
) -> npt.NDArray[np.int32]:
    """int32 [cells, 2] of edges that stand sorted by cell; ``starts`` are the first edges of the cells that have any."""
    words = np.zeros(num_cells, dtype="<u8")
    if len(starts):
        words[cell[starts]] = np.bitwise_or.reduceat(bit, starts)
    return words.view("<i4").reshape(num_cells, 2)


def _degrees(
    source: npt.NDArray[np.int64], target: npt.NDArray[np.int64], weight: npt.NDArray[np.float32] | None, num_nodes: int
) -> npt.NDArray[np.int32]:
    """int32 [N, 2]: how much arrives at and leaves each node."""
    degrees = np.empty((num_nodes, 2), dtype=np.int32)
    degrees[:, 0] = np.bincount(target, weights=weight, minlength=num_nodes)
    degrees[:, 1] = np.bincount(source, weights=weight, minlength=num_nodes)
    return degrees


def _wide_cells(
    offsets: npt.NDArray[np.int64],
    wide: npt.NDArray[np.int64],
    in_wide: npt.NDArray[np.bool_],
    source: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], int, npt.NDArray[np.int64]]:
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


def _tile_offsets(offsets: npt.NDArray[np.int64], wide: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
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
