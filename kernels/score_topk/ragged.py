"""Per-session item lists as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class RaggedItems(NamedTuple):
    """Items of each session, in any order, repeats allowed.

    Attributes:
        indices: int64 [M], item indices, session after session.
        offsets: int64 [B + 1]; those of session b are ``indices[offsets[b]:offsets[b + 1]]``. What lies before the first offset
            or behind the last belongs to no session.
    """

    indices: torch.Tensor
    offsets: torch.Tensor

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]]) -> RaggedItems:
        """From plain lists, one a session."""
        return cls(torch.tensor([item for items in lists for item in items], dtype=torch.int64), _offsets(lists))

    def trimmed(self) -> RaggedItems:
        """Without the indices that belong to no session."""
        begin, end = _ends(self.offsets)
        if (begin, end) == (0, len(self.indices)):
            return self
        return RaggedItems(self.indices[begin:end], self.offsets - begin)


class RaggedScores(NamedTuple):
    """Scores of a few items of each session; several of one item add up.

    Attributes:
        indices: int64 [M], item indices, session after session.
        values: float [M].
        offsets: int64 [B + 1], as for RaggedItems.
    """

    indices: torch.Tensor
    values: torch.Tensor
    offsets: torch.Tensor

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[tuple[int, float]]]) -> RaggedScores:
        """From plain lists of (item, score), one a session."""
        pairs = [pair for items in lists for pair in items]
        indices = torch.tensor([item for item, _ in pairs], dtype=torch.int64)
        return cls(indices, torch.tensor([value for _, value in pairs], dtype=torch.float32), _offsets(lists))

    def trimmed(self) -> RaggedScores:
        """Without the entries that belong to no session."""
        begin, end = _ends(self.offsets)
        if (begin, end) == (0, len(self.indices)):
            return self
        return RaggedScores(self.indices[begin:end], self.values[begin:end], self.offsets - begin)


def _ends(offsets: torch.Tensor) -> tuple[int, int]:
    return int(offsets[0]), int(offsets[-1])


def _offsets(lists: Sequence[Sequence[object]]) -> torch.Tensor:
    lengths = torch.tensor([0] + [len(items) for items in lists], dtype=torch.int64)
    return lengths.cumsum(0)
