"""Many click sessions as two flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sessions:
    """Sessions s = [v_1, ..., v_n], ragged.

    Attributes:
        items: int32 [T], item indices of all clicks, session after session, in click order.
        offsets: int64 [S + 1]; session i is ``items[offsets[i]:offsets[i + 1]]``.
    """

    items: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> npt.NDArray[np.int32]:
        return self.items[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 [S], clicks per session."""
        return np.diff(self.offsets)

    def click_counts(self, num_items: int) -> npt.NDArray[np.int64]:
        """int64 [V], how often each item was clicked."""
        return np.bincount(self.items, minlength=num_items)

    @classmethod
    def from_lists(cls, sessions: list[list[int]]) -> Sessions:
        """From plain lists of item indices; for tests and single requests."""
        lengths = [len(session) for session in sessions]
        items = np.array([item for session in sessions for item in session], dtype=np.int32)
        return cls(items, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))
