"""The rows of a snapshot on a device, brought up to date in place, so that a captured graph keeps reading them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from llmgr_core.ranker.item_rows import BLOCK_ROWS, Block, ItemRows
from llmgr_core.ranker.snapshot import Snapshot

ROUNDED_TO = 256
# One in so many rows is spare for new items.
SPARE_SHARE = 8


class DeviceRows:
    """What scoring reads: directions c_v / |c_v| for cosine logits, c_v for inner products; lengths; which rows may be ranked.

    There is always a spare row at the end. It is zero and never rankable, so that padding may name it.

    Attributes:
        table: float32 [capacity, d].
        lengths: float32 [capacity], what a row of ``table`` is multiplied by to get c_v.
        rankable: bool [capacity].
        snapshot: the state they hold.

    Args:
        snapshot: the first state.
        device: where they stand.
    """

    def __init__(self, snapshot: Snapshot, device: torch.device) -> None:
        self._device = device
        self._cosine = snapshot.parts.cosine
        self._allocate(snapshot)

    @property
    def spare(self) -> int:
        """Number of the spare row."""
        return len(self.table) - 1

    def vectors(self, items: torch.Tensor) -> torch.Tensor:
        """c_v, float32 [n, d], of items, int64 [n] on the device."""
        return self.table.index_select(0, items) * self.lengths.index_select(0, items)[:, None]

    def outgrown_by(self, snapshot: Snapshot) -> bool:
        """Whether ``follow`` will need new tensors."""
        return snapshot.num_items >= len(self.table)

    def follow(self, snapshot: Snapshot) -> None:
        """Hold another state of the same ranker; only what changed is copied, in place unless it has outgrown the memory."""
        if self.outgrown_by(snapshot):
            self._allocate(snapshot)
            return
        known = self.snapshot.rows
        for number, block in enumerate(snapshot.rows.blocks):
            begin, end = number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, snapshot.num_items)
            if number < len(known.blocks) and known.blocks[number] is block:
                # New rows stand in places of a shared block that older states do not look at.
                begin = max(begin, min(known.count, end))
            self._write(block, number * BLOCK_ROWS, begin, end)
        self._mark(snapshot)

    def _allocate(self, snapshot: Snapshot) -> None:
        rows: ItemRows = snapshot.rows
        capacity = -(-(rows.count + rows.count // SPARE_SHARE + 1) // ROUNDED_TO) * ROUNDED_TO
        # All or nothing: where memory runs out, the old rows stand as they were.
        table = torch.zeros(capacity, rows.dimension, device=self._device)
        lengths = torch.zeros(capacity, device=self._device)
        rankable = torch.zeros(capacity, dtype=torch.bool, device=self._device)
        self.table, self.lengths, self.rankable = table, lengths, rankable
        for number, block in enumerate(rows.blocks):
            begin = number * BLOCK_ROWS
            self._write(block, begin, begin, min(begin + BLOCK_ROWS, rows.count))
        self._mark(snapshot)

    def _write(self, block: Block, first: int, begin: int, end: int) -> None:
        if begin >= end:
            return
        directions, lengths = (part[begin - first : end - first] for part in block)
        if self._cosine:
            self.table[begin:end].copy_(torch.from_numpy(directions))
            self.lengths[begin:end].copy_(torch.from_numpy(lengths))
        else:
            self.table[begin:end].copy_(torch.from_numpy(directions * lengths[:, None]))
            self.lengths[begin:end].fill_(1.0)

    def _mark(self, snapshot: Snapshot) -> None:
        rankable: npt.NDArray[np.bool_] = np.zeros(len(self.table), dtype=np.bool_)
        rankable[: snapshot.num_items] = True
        rankable[snapshot.unrankable] = False
        self.rankable.copy_(torch.from_numpy(rankable))
        self.snapshot = snapshot
