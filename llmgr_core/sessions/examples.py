"""Prediction examples: a prefix of a session and the item that followed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.sessions.sessions import Sessions


@dataclass(frozen=True)
class Examples:
    """Examples (prefix, target) that share the click array of their sessions; no prefix is copied.

    Attributes:
        items: int32 [T], item indices of all clicks of all sessions.
        starts: int64 [n]; the prefix of example i is ``items[starts[i]:ends[i]]``.
        ends: int64 [n], exclusive.
        targets: int32 [n], index of the item to predict.
        sessions: int64 [n], number of the session an example was cut from.
    """

    items: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int32]
    sessions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    def prefix(self, index: int) -> npt.NDArray[np.int32]:
        return self.items[self.starts[index] : self.ends[index]]

    def select(self, which: npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice) -> Examples:
        """The examples at these places (indices, a mask or a slice)."""
        return Examples(self.items, self.starts[which], self.ends[which], self.targets[which], self.sessions[which])

    def evenly_spread(self, limit: int) -> Examples:
        """At most ``limit`` of the examples, evenly spread; all for 0."""
        if limit == 0 or len(self) <= limit:
            return self
        return self.select(np.arange(limit, dtype=np.int64) * len(self) // limit)

    def prefixes(self, max_clicks: int | None = None) -> Sessions:
        """The prefixes as sessions of their own, each cut to its last ``max_clicks`` clicks."""
        starts = self.starts if max_clicks is None else np.maximum(self.starts, self.ends - max_clicks)
        lengths = self.ends - starts
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Sessions(self.items[places], offsets)

    @classmethod
    def every_prefix(cls, sessions: Sessions) -> Examples:
        """All n - 1 examples of each session of n clicks: predict v_2 from [v_1], ..., v_n from [v_1 .. v_{n-1}]."""
        lengths = sessions.lengths
        counts = np.maximum(lengths - 1, 0)
        owner = np.repeat(np.arange(len(sessions), dtype=np.int64), counts)
        first = np.cumsum(counts) - counts
        step = np.arange(counts.sum(), dtype=np.int64) - first[owner]
        starts = sessions.offsets[owner]
        ends = starts + step + 1
        return cls(sessions.items, starts, ends, sessions.items[ends], owner)

    @classmethod
    def last_click(cls, sessions: Sessions) -> Examples:
        """One example a session of at least two clicks: predict the last click from all before it."""
        owner = np.flatnonzero(sessions.lengths >= 2).astype(np.int64)
        ends = sessions.offsets[owner + 1] - 1
        return cls(sessions.items, sessions.offsets[owner], ends, sessions.items[ends], owner)
