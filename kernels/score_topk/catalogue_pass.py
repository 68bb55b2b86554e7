"""One pass over the catalogue that keeps the log-sum-exp and the few items that may be among the best."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch

# Scores held at a time, per slab of sessions and chunk of items: 4 MB of float32.
CHUNK_SCORES = 1 << 20
SLAB_SESSIONS = 128
SMALLEST_CHUNK = 1 << 10
CHUNK_ITEMS = 1 << 16
# Matrix products of another shape round otherwise; what lies this close below the k-th score is kept and scored exactly.
SLACK_EPSILONS = 64.0
LOG2_E = math.log2(math.e)


class Edits(NamedTuple):
    """Changes to single scores of a slab of sessions.

    Attributes:
        session: int64 [M], within the slab.
        item: int64 [M].
        value: float [M] to add, or None to take the item out.
    """

    session: torch.Tensor
    item: torch.Tensor
    value: torch.Tensor | None


class CataloguePass(NamedTuple):
    """Outcome for a slab of sessions.

    Attributes:
        session: int64 [M], within the slab.
        item: int64 [M]: every eligible item that can be among the k best, and a few more; rising within a session.
        lse: float [B], log-sum-exp over all eligible items.
    """

    session: torch.Tensor
    item: torch.Tensor
    lse: torch.Tensor


def catalogue_pass(
    z: torch.Tensor, table: torch.Tensor, k: int, edits: list[Edits], rankable: torch.Tensor | None = None
) -> CataloguePass:
    """Stream the table past a slab of sessions.

    A chunk of scores is cut into blocks. The k-th largest block maximum so far is a lower bound of the k-th score, and only
    blocks that reach it are looked into, so that almost every score is touched three times: written, compared, summed.

    Args:
        z: float [B, d] in the dtype of the computation, B >= 1.
        table: float [V, d], V >= 1; converted chunk by chunk.
        k: at least 1.
        edits: applied to the scores in this order.
        rankable: bool [V], items that may be ranked; None for all.
    """
    num_sessions, num_items = len(z), len(table)
    width = min(num_items, max(SMALLEST_CHUNK, min(CHUNK_ITEMS, CHUNK_SCORES // num_sessions)))
    starts = range(0, num_items, width)
    block = next(size for size in (64, 16, 4, 1) if size == 1 or width >= 4 * k * size)
    width_in_blocks = -(-width // block) * block
    buffer = z.new_empty(num_sessions, width_in_blocks)
    chunks = [_by_chunk(edit, starts, num_items) for edit in edits]

    bounds = z.new_full((num_sessions, k), float("-inf"))
    maximum = z.new_full((num_sessions, 1), float("-inf"))
    total = z.new_zeros(num_sessions, 1)
    kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for number, begin in enumerate(starts):
        items = table[begin : begin + width]
        buffer[:, len(items) :] = float("-inf")
        torch.mm(z, items.to(z.dtype).T, out=buffer[:, : len(items)])
        for edit in chunks:
            _apply(edit[number], begin, buffer)
        if rankable is not None:
            buffer[:, : len(items)].masked_fill_(~rankable[begin : begin + width], float("-inf"))
        blocks = buffer.view(num_sessions, -1, block)
        tops = blocks.amax(dim=2) if block > 1 else buffer
        bounds = torch.topk(torch.cat([bounds, tops], dim=1), k).values
        floor = _floor(bounds)
        session, place = torch.nonzero(tops >= floor, as_tuple=True)
        looked_into = blocks[session, place]
        which, within = torch.nonzero(looked_into >= floor[session], as_tuple=True)
        kept.append((session[which], place[which] * block + within + begin, looked_into[which, within]))

        raised = torch.maximum(maximum, bounds[:, :1])
        # A session with nothing eligible so far has no finite maximum to shift by.
        shift = raised.masked_fill(raised == float("-inf"), 0.0)
        total *= (maximum - shift).exp_()
        # torch's exp2 takes a quarter of the time of its exp, which MKL computes.
        total += buffer.sub_(shift).mul_(LOG2_E).exp2_().sum(dim=1, keepdim=True)
        maximum = raised
    lse = (total.log_() + shift).squeeze(1)
    session, item, values = (torch.cat(part) if len(part) > 1 else part[0] for part in zip(*kept, strict=True))
    if len(kept) > 1:
        still = torch.nonzero(values >= floor[session].squeeze(1)).squeeze(1)
        session, item = session[still], item[still]
    return CataloguePass(session, item, lse)


def _floor(bounds: torch.Tensor) -> torch.Tensor:
    """[B, 1], the score from which on an item may be among the best; never -inf, since what is taken out stays out."""
    slack = SLACK_EPSILONS * torch.finfo(bounds.dtype).eps
    floor = bounds[:, -1:] - slack * bounds[:, :1].abs()
    lowest = torch.finfo(bounds.dtype).min
    return floor.nan_to_num_(nan=lowest, neginf=lowest)


def _by_chunk(edit: Edits, starts: range, num_items: int) -> list[Edits]:
    """The edits that fall into each chunk of items."""
    if len(starts) <= 1:
        return [edit]
    item, order = torch.sort(edit.item, stable=True)
    value = None if edit.value is None else edit.value[order]
    ends = torch.searchsorted(item, torch.tensor([*starts, num_items], device=item.device)).tolist()
    session = edit.session[order]
    return [
        Edits(session[begin:end], item[begin:end], None if value is None else value[begin:end]) for begin, end in pairwise(ends)
    ]


def _apply(edit: Edits, begin: int, buffer: torch.Tensor) -> None:
    if len(edit.item) == 0:
        return
    place = edit.session * buffer.shape[1] + (edit.item - begin)
    if edit.value is None:
        buffer.view(-1).index_fill_(0, place, float("-inf"))
    else:
        buffer.view(-1).index_add_(0, place, edit.value.to(buffer.dtype))
