"""Exclusions and additive terms as the catalogue kernel finds them: by session, or by the tile they fall into."""

from __future__ import annotations

from typing import NamedTuple

import torch


class EditLists(NamedTuple):
    """One kind of edits; all None where there is none.

    Attributes:
        items: int64 [M].
        values: float [M], what to add; None takes the items out.
        sessions: int64 [M]; None where the edits stand by session.
        bounds: int64 [B + 1] by session, or [row blocks x tiles + 1] by (row block, tile).
    """

    items: torch.Tensor | None
    values: torch.Tensor | None
    sessions: torch.Tensor | None
    bounds: torch.Tensor | None


NO_EDITS = EditLists(None, None, None, None)


def by_tile(
    items: torch.Tensor, values: torch.Tensor | None, offsets: torch.Tensor, block_b: int, block_v: int, num_tiles: int
) -> EditLists:
    """Sort the edits of the sessions by (row block, tile), so that a program meets only its own; nothing waits for the device.

    Args:
        items: int64 [M], session after session.
        values: float [M] or None.
        offsets: int64 [B + 1]; edits outside them are those of other sessions, and go to the end.
        block_b, block_v: sessions and items of a tile.
        num_tiles: tiles of the catalogue.
    """
    num_sessions = len(offsets) - 1
    num_groups = -(-num_sessions // block_b) * num_tiles
    sessions = torch.searchsorted(offsets, torch.arange(len(items), device=items.device), right=True) - 1
    group = torch.div(sessions, block_b, rounding_mode="floor") * num_tiles
    group += torch.div(items, block_v, rounding_mode="floor").clamp_(0, num_tiles - 1)
    group = torch.where((sessions >= 0) & (sessions < num_sessions), group, num_groups)
    group, order = torch.sort(group, stable=True)
    bounds = torch.searchsorted(group, torch.arange(num_groups + 1, device=items.device))
    return EditLists(items[order], None if values is None else values[order], sessions[order], bounds)
