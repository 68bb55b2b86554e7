"""Where the clicks of ragged sessions stand for what takes steps or padded blocks, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.padding import length_classes, rearranged
from llmgr_core.graphs import SessionBatch


def session_of_click(batch: SessionBatch) -> Tensor:
    """int64 [T], the session of each click."""
    sessions = torch.arange(batch.num_sessions, device=batch.device)
    return torch.repeat_interleave(sessions, batch.click_offsets.diff(), output_size=len(batch.click_nodes))


def clicks_before_last(batch: SessionBatch) -> Tensor:
    """int64 [T], clicks between each click and the last of its session: 0 for the last."""
    total = len(batch.click_nodes)
    last = torch.repeat_interleave(batch.click_offsets[1:] - 1, batch.click_offsets.diff(), output_size=total)
    return last - torch.arange(total, device=batch.device)


def last_rows(rows: Tensor, batch: SessionBatch) -> Tensor:
    """The row of the last click of each session, [T, d] -> [B, d]; some row for an empty session."""
    return rows.index_select(0, (batch.click_offsets[1:] - 1).clamp(min=0))


def zero_where_empty(vectors: Tensor, batch: SessionBatch) -> Tensor:
    """Session vectors [B, d] with zeros for a session without clicks."""
    return torch.where((batch.click_offsets.diff() > 0)[:, None], vectors, torch.zeros_like(vectors))


def fixed_widths(device: torch.device) -> bool:
    """Whether sessions are padded to ``max_clicks``: to ask a GPU how long they are is to wait for it."""
    return device.type != "cpu"


class PaddedSessions:
    """The last clicks of each session in padded blocks [n, w, k], aligned at the last click: column w - 1.

    On a CPU sessions are sorted into classes by length, each padded to its own longest, at most twice its shortest: less
    than half of a class is padding. On a GPU there is one class of ``max_clicks`` columns, for which nothing waits.

    Args:
        batch: the sessions.
        max_clicks: earlier clicks of a longer session stand in no block.

    Attributes:
        present: bool [n, w] of each class, where a click stands.
        sessions: int64 [n] of each class, its sessions; a session without clicks may be in none.
    """

    def __init__(self, batch: SessionBatch, max_clicks: int) -> None:
        ends = batch.click_offsets[1:]
        lengths = batch.click_offsets.diff().clamp(max=max_clicks)
        self.present: list[Tensor] = []
        self.sessions: list[Tensor] = []
        places = []
        begin = 0
        device = batch.device
        start_of, width_of = torch.zeros_like(lengths), torch.zeros_like(lengths)
        self._block_of = torch.full_like(lengths, -1)
        blocks = 0
        for members, width in _classes(lengths, min(max_clicks, len(batch.click_nodes))):
            before_last = torch.arange(width - 1, -1, -1, device=device)
            present = before_last < lengths[members][:, None]
            places.append(torch.where(present, ends[members][:, None] - 1 - before_last, -1).view(-1))
            self.present.append(present)
            self.sessions.append(members)
            order = torch.arange(len(members), device=device)
            start_of[members] = begin + order * width
            width_of.index_fill_(0, members, width)
            self._block_of[members] = blocks + order
            begin += len(members) * width
            blocks += len(members)
        self._places = torch.cat(places)
        session = session_of_click(batch)
        distance = clicks_before_last(batch)
        slots = start_of[session] + width_of[session] - 1 - distance
        self._slots = torch.where(distance < lengths[session], slots, -1)

    def padded(self, rows: Tensor) -> list[Tensor]:
        """Rows of clicks [T, k] as a block [n, w, k] of each class, zeros where no click stands."""
        sizes = [present.numel() for present in self.present]
        blocks = torch.split(rearranged(rows, self._places, self._slots), sizes)
        return [block.view(*present.shape, -1) for block, present in zip(blocks, self.present, strict=True)]

    def flat(self, blocks: list[Tensor]) -> Tensor:
        """Blocks [n, w, k] as rows of clicks [T, k], zeros for clicks in no block."""
        return rearranged(torch.cat([block.flatten(0, 1) for block in blocks]), self._slots, self._places)

    def by_session(self, blocks: list[Tensor]) -> Tensor:
        """One row a session, [n, k] of each class, as [B, k]; zeros for sessions in no class."""
        return rearranged(torch.cat(blocks), self._block_of, torch.cat(self.sessions))


def _classes(lengths: Tensor, widest: int) -> list[tuple[Tensor, int]]:
    if fixed_widths(lengths.device):
        return [(torch.arange(len(lengths), device=lengths.device), widest)]
    return length_classes(lengths)
