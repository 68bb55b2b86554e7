"""Which variant of each kernel a call takes: a small fixed table, by dtype and width of the rows and by rounded sizes."""

from __future__ import annotations

from typing import NamedTuple

import torch

LONGEST_RANKING = 1000
WIDEST_ROW = 128
MOST_ITEMS = 1 << 31
# More blocks are scored exactly than k: the maxima are rounded, and the k-th place must not hang on that.
SPARE_BLOCKS = 4
SMALL_CATALOGUE = 1 << 16
FEW_SESSIONS = 16
# Programs of the catalogue pass: enough to fill any GPU of today several times over.
PROGRAMS = 528
# Block maxima held at a time: 256 MB.
MAXIMA_AT_A_TIME = 1 << 26
# Exactly scored items held at a time: 256 MB. With few items and a large k nearly all of a row is scored exactly.
KEYS_AT_A_TIME = 1 << 25
# Up to here every program looks through all edits of its sessions; beyond, they are sorted by tile first.
EDITS_LOOKED_THROUGH = 1 << 10
TILES_LOOKED_THROUGH = 1 << 11
HOPPER = 90
KEEPS = (32, 128, 1024)
BATCH = 32
CHUNK = 1024
EXACT_ITEMS = 256
EXACT_WARPS = 8
# Keys sorted at once: the network is unrolled, and a larger one takes minutes to compile.
MOST_SORTED = 4096
# Of the programs that sort.
SORTING_WARPS = 8
# By slots, and by kept keys; other numbers spill in one of the compilers the gate runs.
STREAMING_WARPS = {32: 8, 128: 16, 1024: 4}
RANKING_WARPS = {32: 8, 128: 16, 1024: 32}


class CataloguePlan(NamedTuple):
    """Tiles of the catalogue pass.

    Attributes:
        block_b, block_v: sessions and items of a tile.
        block_d: width of a row, rounded up.
        num_warps, num_stages: of the launch.
    """

    block_b: int
    block_v: int
    block_d: int
    num_warps: int
    num_stages: int


class SelectionPlan(NamedTuple):
    """Layout of the block maxima while the best are selected; ``span`` 0 streams them."""

    slots: int
    width: int
    span: int
    num_warps: int


def catalogue_plan(
    num_sessions: int, num_items: int, dimension: int, z_dtype: torch.dtype, capability: int = HOPPER
) -> CataloguePlan:
    """Tiles for B sessions in the dtype that is multiplied, on a GPU of that compute capability (90 is sm_90)."""
    block_d = next(width for width in (64, 128) if dimension <= width)
    many = num_sessions > FEW_SESSIONS
    if not many and num_items <= SMALL_CATALOGUE:
        return CataloguePlan(FEW_SESSIONS, 32, block_d, 2 if block_d == 64 else 4, 2)
    if many and z_dtype != torch.float32:
        return CataloguePlan(128, 64, block_d, 8, 3)
    if many and block_d == 64:
        # Three tf32 products of 64 rows fit the registers only where the tensor cores read their operands from shared memory.
        return CataloguePlan(64 if capability >= HOPPER else 32, 64, block_d, 4, 2)
    return CataloguePlan(FEW_SESSIONS, 64, block_d, 8 if z_dtype == torch.float32 and block_d > 64 else 4, 3)


def tiles_per_part(num_tiles: int, row_blocks: int) -> int:
    """Tiles of one program: a power of two, so that catalogues of like size share a compiled kernel."""
    return 1 << (max(1, num_tiles * row_blocks // PROGRAMS).bit_length() - 1)


def selection_plan(k: int, num_blocks: int) -> SelectionPlan:
    """Slots for k blocks and the spare ones."""
    slots = next(size for size in KEEPS if k + SPARE_BLOCKS <= size)
    if slots < KEEPS[-1]:
        for width, span in ((1024, 1), (1024, 16), (1024, 64)):
            if num_blocks <= width * span and slots * span <= MOST_SORTED:
                return SelectionPlan(slots, width, span, SORTING_WARPS)
    return SelectionPlan(slots, CHUNK, 0, STREAMING_WARPS[slots])


def keep_for(k: int) -> int:
    """Keys kept while ranking k."""
    return next(size for size in KEEPS if k <= size)


def slots_used(k: int, num_blocks: int) -> int:
    """Blocks of a session that are scored exactly."""
    return min(k + SPARE_BLOCKS, selection_plan(k, num_blocks).slots, num_blocks)


def sessions_at_a_time(k: int, num_blocks: int, plan: CataloguePlan) -> int:
    """Sessions of which maxima and exact scores are held at a time: whole tiles, at least one."""
    fitting = min(MAXIMA_AT_A_TIME // num_blocks, KEYS_AT_A_TIME // (slots_used(k, num_blocks) * plan.block_v))
    return max(fitting // plan.block_b, 1) * plan.block_b


def exact_step(dimension: int, z_dtype: torch.dtype, table_dtype: torch.dtype) -> int:
    """Columns that are scored exactly at a time."""
    # Wide rows of two dtypes spill at 16 in Triton 3.9.
    return 32 if dimension > 64 and z_dtype != table_dtype else 16


def looks_through(num_sessions: int, num_tiles: int, num_edits: int) -> bool:
    """Whether programs look through all edits of their sessions."""
    return num_sessions <= FEW_SESSIONS and num_tiles <= TILES_LOOKED_THROUGH and num_edits <= EDITS_LOOKED_THROUGH
