"""A GRU over the clicks of ragged sessions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from kernels.padding import rearranged
from llmgr_core.encoders.ragged_rows import clicks_before_last, fixed_widths, session_of_click
from llmgr_core.graphs import SessionBatch


class ClickGRU(nn.Module):
    """h_t = GRU(h_(t-1), x_t) over the last ``max_clicks`` clicks of each session, h_0 = 0 (Cho et al. 2014).

    On a CPU all sessions that are still running take a step together, and no step is padding. On a GPU sessions are padded to
    ``max_clicks``, for which nothing waits for the device.

    Args:
        dimension: d, of clicks and states.
        max_clicks: earlier clicks of a longer session are left out.
    """

    def __init__(self, dimension: int, max_clicks: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dimension, dimension, batch_first=True)
        self.max_clicks = max_clicks

    def forward(self, rows: Tensor, batch: SessionBatch) -> tuple[Tensor, Tensor]:
        """States after each click and after the last.

        Args:
            rows: x, float [T, d], T > 0.
            batch: the sessions.

        Returns:
            h of each click, float [T, d], zeros for clicks left out; h of each session's last click, float [B, d], zeros for an
            empty session.
        """
        lengths = batch.click_offsets.diff().clamp(max=self.max_clicks)
        begins = batch.click_offsets[1:] - lengths
        if fixed_widths(rows.device):
            return self._padded(rows, batch, lengths, begins)
        return self._packed(rows, lengths, begins)

    def _packed(self, rows: Tensor, lengths: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.argsort(lengths, descending=True, stable=True)
        order = order[lengths[order] > 0]
        step = torch.arange(int(lengths.max()))[:, None]
        running = step < lengths[order]
        places = (begins[order] + step)[running]
        slots = lengths.new_full((len(rows),), -1)
        slots[places] = torch.arange(len(places))
        packed = PackedSequence(rearranged(rows, places, slots), running.sum(1))
        states, last = self.gru(packed)
        rank = torch.full_like(lengths, -1)
        rank[order] = torch.arange(len(order))
        return rearranged(states.data, slots, places), rearranged(last[0], rank, order)

    def _padded(self, rows: Tensor, batch: SessionBatch, lengths: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        width = min(self.max_clicks, len(rows))
        step = torch.arange(width, device=rows.device)
        places = torch.where(step < lengths[:, None], begins[:, None] + step, -1).view(-1)
        session = session_of_click(batch)
        place = lengths[session] - 1 - clicks_before_last(batch)
        slots = torch.where(place >= 0, session * width + place, -1)
        states, _ = self.gru(rearranged(rows, places, slots).view(len(lengths), width, -1))
        flat = rearranged(states.flatten(0, 1), slots, places)
        last = flat.index_select(0, (batch.click_offsets[1:] - 1).clamp(min=0))
        return flat, torch.where((lengths > 0)[:, None], last, torch.zeros_like(last))
