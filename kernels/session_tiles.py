"""Sessions packed into tiles of nodes, with their edges as bit masks: what a GPU program works on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

TILE_NODES = 64
MASK_BITS = 32


@dataclass(frozen=True, eq=False)
class SessionTiles:
    """Runs of whole sessions, each of at most ``TILE_NODES`` nodes, and the edges inside them as masks.

    A session of at most 32 nodes is *narrow*: one 32-bit word a node holds its outgoing edges. Wider sessions stand outside
    the tiles, listed on their own with as many words a node as the widest of them needs.
    The incoming edges are the transpose of the same masks.

    Attributes:
        tile_offsets: int64 [tiles, 2], first node and end of each tile; nodes of wide sessions are in none.
        session_start: int32 [N], first node of the session of each node.
        row_mask: int32 [N]; bit j of node u is set if the edge (u, session_start[u] + j) exists. 0 in wide sessions.
        wide_sessions: int64 [W], sessions of more than 32 nodes.
        wide_mask_offsets: int64 [W + 1], first row in ``wide_mask`` of each wide session.
        wide_mask: int32 [nodes in wide sessions, words]; bit j % 32 of word j // 32, as above.
    """

    tile_offsets: torch.Tensor
    session_start: torch.Tensor
    row_mask: torch.Tensor
    wide_sessions: torch.Tensor
    wide_mask_offsets: torch.Tensor
    wide_mask: torch.Tensor

    @property
    def num_tiles(self) -> int:
        return len(self.tile_offsets)

    def to(self, device: torch.device | str) -> SessionTiles:
        """The same tiles on another device."""
        return SessionTiles(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def pack_tiles(node_offsets: torch.Tensor, edge_source: torch.Tensor, edge_target: torch.Tensor) -> SessionTiles:
    """Pack sessions in their order, each tile taking as many as fit, and write the edge masks.

    Args:
        node_offsets: int64 [B + 1] of a SessionGraph.
        edge_source: int64 [E], distinct edges.
        edge_target: int64 [E].

    Returns:
        Tiles on the device of ``node_offsets``; the work is done on the CPU.
    """
    device = node_offsets.device
    offsets = node_offsets.cpu().numpy()
    source, target = edge_source.cpu().numpy(), edge_target.cpu().numpy()
    sizes = np.diff(offsets)
    num_nodes = int(offsets[-1])
    wide = np.flatnonzero(sizes > MASK_BITS)
    start = np.repeat(offsets[:-1], sizes)

    bit = target - start[target]
    narrow_source = np.repeat(sizes <= MASK_BITS, sizes)[source]
    # Sums of distinct powers of two are exact in float64, and bincount adds them without a loop.
    row_mask = np.bincount(source[narrow_source], weights=np.exp2(bit[narrow_source]), minlength=num_nodes)

    wide_sizes = sizes[wide]
    wide_offsets = np.zeros(len(wide) + 1, dtype=np.int64)
    np.cumsum(wide_sizes, out=wide_offsets[1:])
    words = -(-int(wide_sizes.max(initial=0)) // MASK_BITS)
    wide_mask = np.zeros((int(wide_offsets[-1]), words), dtype=np.uint32)
    if len(wide):
        row_of_node = np.full(num_nodes, -1, dtype=np.int64)
        row_of_node[np.repeat(sizes > MASK_BITS, sizes)] = np.arange(wide_offsets[-1])
        row = row_of_node[source[~narrow_source]]
        bit = bit[~narrow_source]
        flat = np.bincount(row * words + bit // MASK_BITS, weights=np.exp2(bit % MASK_BITS), minlength=wide_mask.size)
        wide_mask[:] = flat.reshape(wide_mask.shape).astype(np.uint32)

    arrays = {
        "tile_offsets": _tile_offsets(offsets, wide),
        "session_start": start.astype(np.int32),
        "row_mask": row_mask.astype(np.uint32).view(np.int32),
        "wide_sessions": wide,
        "wide_mask_offsets": wide_offsets,
        "wide_mask": wide_mask.view(np.int32),
    }
    return SessionTiles(**{name: torch.from_numpy(array).to(device) for name, array in arrays.items()})


def _tile_offsets(offsets: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """int64 [tiles, 2]: greedy runs of narrow sessions, each at most TILE_NODES nodes."""
    num_sessions = len(offsets) - 1
    reach = np.searchsorted(offsets, offsets[:-1] + TILE_NODES, side="right") - 1
    # A run also ends where a wide session begins.
    barrier = np.append(wide, num_sessions)
    sessions = np.arange(num_sessions)
    reach = np.minimum(reach, barrier[np.searchsorted(barrier, sessions)])
    reach[wide] = wide + 1
    following = reach.tolist()
    is_wide = np.zeros(num_sessions + 1, dtype=np.bool_)
    is_wide[wide] = True
    runs = []
    session = 0
    while session < num_sessions:
        runs.append(session)
        session = following[session]
    first = np.array(runs, dtype=np.int64)
    end = reach[first] if len(first) else first
    tiles = np.stack([offsets[first], offsets[end]], axis=1)[~is_wide[first]]
    return np.ascontiguousarray(tiles[tiles[:, 0] < tiles[:, 1]])
