"""How the kernels of this op cut sessions and items into tiles."""

from __future__ import annotations

from typing import NamedTuple

import torch

# Widest vectors whose accumulators stay in registers.
WIDEST = 256
NARROWEST_BLOCK = 64
# Programs that fill a large GPU about twice; a split of the catalogue exists only to reach this number.
PROGRAMS = 256


class Tiles(NamedTuple):
    """One way to launch a kernel.

    Attributes:
        sessions, items: sides of a tile of logits.
        block: width of a vector as the kernel sees it, a power of two of at least d.
        num_warps, num_stages: of the launch.
    """

    sessions: int
    items: int
    block: int
    num_warps: int
    num_stages: int


# By width of the block, then (16-bit, 32-bit inputs).
FORWARD = {
    64: (Tiles(128, 128, 64, 8, 3), Tiles(64, 64, 64, 4, 2)),
    128: (Tiles(128, 128, 128, 8, 2), Tiles(64, 64, 128, 8, 2)),
    256: (Tiles(64, 64, 256, 4, 2), Tiles(32, 32, 256, 4, 2)),
}
SESSION_GRADIENT = {
    64: (Tiles(128, 64, 64, 8, 3), Tiles(64, 64, 64, 8, 2)),
    128: (Tiles(64, 64, 128, 4, 2), Tiles(64, 32, 128, 8, 2)),
    256: (Tiles(64, 64, 256, 8, 2), Tiles(32, 32, 256, 8, 2)),
}
TABLE_GRADIENT = {
    64: (Tiles(64, 128, 64, 8, 3), Tiles(64, 64, 64, 8, 2)),
    128: (Tiles(64, 64, 128, 4, 2), Tiles(32, 64, 128, 8, 2)),
    256: (Tiles(64, 64, 256, 8, 2), Tiles(32, 32, 256, 8, 2)),
}


def block_width(dimension: int) -> int:
    """Smallest width the kernels are compiled for that holds d."""
    return max(NARROWEST_BLOCK, 1 << (dimension - 1).bit_length())


def choose(table: dict[int, tuple[Tiles, Tiles]], dimension: int, dtype: torch.dtype) -> Tiles:
    """The tiles of a kernel for this width and dtype; neither B nor V decides."""
    return table[block_width(dimension)][int(dtype.itemsize > 2)]


def split_catalogue(num_sessions: int, num_items: int, tiles: Tiles) -> tuple[int, int]:
    """Into how many splits the items are cut, and how many tiles each has; no split is empty."""
    session_tiles, item_tiles = -(-num_sessions // tiles.sessions), -(-num_items // tiles.items)
    per_split = -(-item_tiles // max(1, min(item_tiles, PROGRAMS // session_tiles)))
    return -(-item_tiles // per_split), per_split
