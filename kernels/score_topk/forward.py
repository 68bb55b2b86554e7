"""Launches of the scoring kernels: block maxima, the best blocks, their items scored exactly, the ranking."""

from __future__ import annotations

from typing import TypeVar

import torch
import triton

from kernels.score_topk import launch_plan
from kernels.score_topk.block_maxima import block_maxima_kernel
from kernels.score_topk.edits import NO_EDITS, EditLists, by_tile
from kernels.score_topk.exact_keys import block_keys_kernel, candidate_keys_kernel
from kernels.score_topk.launch_plan import BATCH, CHUNK, EXACT_ITEMS, EXACT_WARPS, RANKING_WARPS
from kernels.score_topk.ragged import RaggedItems, RaggedScores
from kernels.score_topk.ranking import ranking_kernel
from kernels.score_topk.select_blocks import select_blocks_kernel

Result = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Ragged = TypeVar("Ragged", RaggedItems, RaggedScores)


def launch_score_topk(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude: RaggedItems | None,
    candidates: RaggedItems | None,
    additive: RaggedScores | None,
    rankable: torch.Tensor | None,
) -> Result:
    """Same meaning as ``score_topk_reference``, for k <= 1,000, d <= 128 and 16- or 32-bit floats.

    Nothing waits for the device: every size comes from a shape. Indices outside the table have no effect.
    """
    if len(z) == 0 or len(table) == 0:
        return (
            torch.full((len(z), k), -1, dtype=torch.int64, device=z.device),
            torch.full((len(z), k), float("-inf"), dtype=torch.float32, device=z.device),
            torch.full((len(z),), float("-inf"), dtype=torch.float32, device=z.device),
        )
    exclude, candidates, additive = _lined_up(exclude), _lined_up(candidates), _lined_up(additive)
    exclude = None if exclude is None or len(exclude.indices) == 0 else exclude
    additive = None if additive is None or len(additive.indices) == 0 else additive
    z, table = (z if z.dtype == table.dtype else z.float()).contiguous(), table.contiguous()
    rankable = None if rankable is None else rankable.contiguous()
    result = (
        torch.empty(len(z), k, dtype=torch.int64, device=z.device),
        torch.empty(len(z), k, dtype=torch.float32, device=z.device),
        torch.empty(len(z), dtype=torch.float32, device=z.device),
    )
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        if candidates is not None:
            _rank_candidates(z, table, k, exclude, candidates, additive, rankable, result)
            return result
        capability = _capability(z.device)
        tiles = launch_plan.catalogue_plan(len(z), len(table), z.shape[1], z.dtype, capability)
        slab = launch_plan.sessions_at_a_time(k, triton.cdiv(len(table), tiles.block_v), tiles)
        for begin in range(0, len(z), slab):
            end = min(begin + slab, len(z))
            part = (result[0][begin:end], result[1][begin:end], result[2][begin:end])
            out, added = _slab(exclude, begin, end), _slab(additive, begin, end)
            _rank_catalogue(z[begin:end], table, k, out, added, rankable, tiles, part)
    return result


def _lined_up(ragged: Ragged | None) -> Ragged | None:
    """The same list without strides, as the kernels read it."""
    return None if ragged is None else ragged._replace(**{name: part.contiguous() for name, part in ragged._asdict().items()})


def _slab(ragged: Ragged | None, begin: int, end: int) -> Ragged | None:
    """The lists of some sessions; the offsets keep pointing into the whole."""
    return None if ragged is None else ragged._replace(offsets=ragged.offsets[begin : end + 1])


def _capability(device: torch.device) -> int:
    """Compute capability, 90 for sm_90; what the interpreter runs is Hopper's."""
    if device.type != "cuda":
        return launch_plan.HOPPER
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _rank_catalogue(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude: RaggedItems | None,
    additive: RaggedScores | None,
    rankable: torch.Tensor | None,
    tiles: launch_plan.CataloguePlan,
    result: Result,
) -> None:
    """All four launches for a slab of sessions."""
    num_sessions, num_items, dimension = len(z), len(table), z.shape[1]
    num_tiles = triton.cdiv(num_items, tiles.block_v)
    row_blocks = triton.cdiv(num_sessions, tiles.block_b)
    tiles_per_part = launch_plan.tiles_per_part(num_tiles, row_blocks)
    num_parts = triton.cdiv(num_tiles, tiles_per_part)

    num_edits = sum(len(one.indices) for one in (exclude, additive) if one is not None)
    in_order = not launch_plan.looks_through(num_sessions, num_tiles, num_edits)
    out, added = (_edits(one, tiles, num_tiles, in_order) for one in (exclude, additive))
    maxima = torch.empty(num_sessions, num_tiles, dtype=torch.float32, device=z.device)
    part_maximum, part_sum = torch.empty(2, num_sessions, num_parts, dtype=torch.float32, device=z.device).unbind(0)
    block_maxima_kernel[(row_blocks, num_parts)](
        z,
        table,
        maxima,
        part_maximum,
        part_sum,
        out.items,
        out.sessions,
        out.bounds,
        added.items,
        added.values,
        added.sessions,
        added.bounds,
        rankable,
        num_sessions,
        num_items,
        num_parts,
        D=dimension,
        BLOCK_D=tiles.block_d,
        BLOCK_B=tiles.block_b,
        BLOCK_V=tiles.block_v,
        BATCH=BATCH,
        HAS_EXCLUDE=exclude is not None,
        HAS_ADDITIVE=additive is not None,
        HAS_RANKABLE=rankable is not None,
        SORTED=in_order,
        TILES=tiles_per_part,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
    )
    selection = launch_plan.selection_plan(k, num_tiles)
    blocks = torch.empty(num_sessions, selection.slots, dtype=torch.int64, device=z.device)
    select_blocks_kernel[(num_sessions,)](
        maxima,
        blocks,
        num_tiles,
        SLOTS=selection.slots,
        WIDTH=selection.width,
        SPAN=selection.span,
        num_warps=selection.num_warps,
    )
    num_slots = launch_plan.slots_used(k, num_tiles)
    keys = torch.empty(num_sessions, num_slots * tiles.block_v, dtype=torch.int64, device=z.device)
    block_keys_kernel[(num_sessions, triton.cdiv(num_slots * tiles.block_v, EXACT_ITEMS))](
        z,
        table,
        blocks,
        keys,
        *_lists(exclude, additive),
        rankable,
        num_items,
        num_slots,
        selection.slots,
        BLOCK_V=tiles.block_v,
        D=dimension,
        STEP_D=launch_plan.exact_step(dimension, z.dtype, table.dtype),
        ITEMS=EXACT_ITEMS,
        BATCH=BATCH,
        HAS_EXCLUDE=exclude is not None,
        HAS_ADDITIVE=additive is not None,
        HAS_RANKABLE=rankable is not None,
        num_warps=EXACT_WARPS,
    )
    _rank(keys, keys.shape[1], None, None, (part_maximum, part_sum), k, result)


def _rank_candidates(
    z: torch.Tensor,
    table: torch.Tensor,
    k: int,
    exclude: RaggedItems | None,
    candidates: RaggedItems,
    additive: RaggedScores | None,
    rankable: torch.Tensor | None,
    result: Result,
) -> None:
    """Two launches, after the candidates of each session were put in order."""
    num_sessions, total = len(z), len(candidates.indices)
    # One key a pair, so that a single sort orders every list where it stands; room at both ends for indices outside the table.
    span = len(table) + 2
    places = torch.arange(total, device=z.device)
    first = (torch.searchsorted(candidates.offsets, places, right=True) - 1) * span + 1
    pairs = torch.sort(candidates.indices.clamp(-1, len(table)) + first).values
    items = pairs - first
    keys = torch.empty(total, dtype=torch.int64, device=z.device)
    scores = torch.empty(total, dtype=torch.float32, device=z.device)
    num_parts = max(1, min(launch_plan.PROGRAMS // num_sessions, triton.cdiv(total, EXACT_ITEMS)))
    candidate_keys_kernel[(num_sessions, num_parts)](
        z,
        table,
        items,
        candidates.offsets,
        keys,
        scores,
        *_lists(exclude, additive),
        rankable,
        len(table),
        num_parts,
        D=z.shape[1],
        STEP_D=launch_plan.exact_step(z.shape[1], z.dtype, table.dtype),
        ITEMS=EXACT_ITEMS,
        BATCH=BATCH,
        HAS_EXCLUDE=exclude is not None,
        HAS_ADDITIVE=additive is not None,
        HAS_RANKABLE=rankable is not None,
        num_warps=EXACT_WARPS,
    )
    _rank(keys, 0, candidates.offsets, scores, (scores, scores), k, result)


def _rank(
    keys: torch.Tensor,
    keys_of_session: int,
    bounds: torch.Tensor | None,
    scores: torch.Tensor | None,
    parts: tuple[torch.Tensor, torch.Tensor],
    k: int,
    result: Result,
) -> None:
    ids, best, lse = result
    keep = launch_plan.keep_for(k)
    ranking_kernel[(len(lse),)](
        keys,
        bounds,
        scores,
        *parts,
        ids,
        best,
        lse,
        keys_of_session,
        k,
        parts[0].shape[-1],
        KEEP=keep,
        CHUNK=CHUNK,
        RAGGED=bounds is not None,
        num_warps=RANKING_WARPS[keep],
    )


def _edits(
    ragged: RaggedItems | RaggedScores | None, tiles: launch_plan.CataloguePlan, num_tiles: int, in_order: bool
) -> EditLists:
    if ragged is None:
        return NO_EDITS
    values = ragged.values if isinstance(ragged, RaggedScores) else None
    if in_order:
        return by_tile(ragged.indices, values, ragged.offsets, tiles.block_b, tiles.block_v, num_tiles)
    return EditLists(ragged.indices, values, None, ragged.offsets)


def _lists(exclude: RaggedItems | None, additive: RaggedScores | None) -> tuple[torch.Tensor | None, ...]:
    """Arguments of the exact kernels."""
    return (*(exclude or (None, None)), *(additive or (None, None, None)))
