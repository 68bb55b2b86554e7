"""How the kernels of this op cut sessions and items into tiles."""

from __future__ import annotations

from typing import NamedTuple

import torch

NARROWEST_BLOCK = 64
# Programs that fill a large GPU about twice; a split of the catalogue exists only to reach this number.
PROGRAMS = 256
HOPPER = 9


class Tiles(NamedTuple):
    """One way to launch a kernel.

    Attributes:
        sessions, items: sides of a tile of logits.
        num_warps, num_stages: of the launch.
    """

    sessions: int
    items: int
    num_warps: int
    num_stages: int


TilesByWidth = dict[str, dict[int, Tiles]]
"""By kind of number, then by width of the block, the largest tiles that were found to spill no registers.

half: fp16 and bf16. single: fp32, whose products in three parts need twice the registers; at d = 256 no tile goes without
spills. single_hopper: fp32 from compute capability 9 on, where factors of products may stay in shared memory.
"""

FORWARD: TilesByWidth = {
    "half": {64: Tiles(128, 64, 8, 3), 128: Tiles(128, 64, 8, 2), 256: Tiles(64, 64, 4, 2)},
    "single": {64: Tiles(64, 32, 4, 2), 128: Tiles(32, 64, 8, 2)},
    "single_hopper": {64: Tiles(64, 64, 4, 2), 128: Tiles(64, 64, 8, 2)},
}
SESSION_GRADIENT: TilesByWidth = {
    "half": {64: Tiles(128, 64, 8, 3), 128: Tiles(64, 64, 4, 2), 256: Tiles(64, 32, 8, 2)},
    "single": {64: Tiles(32, 64, 4, 2), 128: Tiles(32, 32, 8, 2)},
    "single_hopper": {64: Tiles(64, 32, 4, 2), 128: Tiles(32, 32, 8, 2)},
}
TABLE_GRADIENT: TilesByWidth = {
    "half": {64: Tiles(64, 128, 8, 3), 128: Tiles(64, 64, 8, 2), 256: Tiles(32, 64, 8, 2)},
    "single": {64: Tiles(64, 32, 4, 2), 128: Tiles(32, 16, 8, 2)},
    "single_hopper": {64: Tiles(32, 64, 4, 2), 128: Tiles(32, 16, 8, 2)},
}


def widest(dtype: torch.dtype) -> int:
    """Largest d that the kernels take."""
    return max(FORWARD["half" if dtype.itemsize == 2 else "single"])


def block_width(dimension: int) -> int:
    """Smallest width the kernels are compiled for that holds d."""
    return max(NARROWEST_BLOCK, 1 << (dimension - 1).bit_length())


def choose(table: TilesByWidth, rows: torch.Tensor) -> Tiles:
    """The tiles of a kernel for such rows [., d]; neither B nor V decides, so nothing is compiled anew when they change."""
    kind = "half" if rows.dtype.itemsize == 2 else "single"
    if kind == "single" and rows.is_cuda and torch.cuda.get_device_capability(rows.device)[0] >= HOPPER:
        kind = "single_hopper"
    return table[kind][block_width(rows.shape[1])]


def split_catalogue(num_sessions: int, num_items: int, tiles: Tiles) -> tuple[int, int]:
    """Into how many splits the items are cut, and how many tiles each has; no split is empty."""
    session_tiles, item_tiles = -(-num_sessions // tiles.sessions), -(-num_items // tiles.items)
    per_split = -(-item_tiles // max(1, min(item_tiles, PROGRAMS // session_tiles)))
    return -(-item_tiles // per_split), per_split
