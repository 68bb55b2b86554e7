"""All clicks of a data set as flat columns, before any split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.sessions import Sessions


@dataclass(frozen=True)
class ClickLog:
    """Clicks, session after session, in click order.

    Attributes:
        sessions: the clicks of T clicks in S sessions.
        times: float64 [T], any unit, or None where the data has no timestamps.
    """

    sessions: Sessions
    times: npt.NDArray[np.float64] | None = None

    @property
    def owners(self) -> npt.NDArray[np.int32]:
        """int32 [T], number of the session of each click."""
        return np.repeat(np.arange(len(self.sessions), dtype=np.int32), self.sessions.lengths)

    def keep(self, clicks: npt.NDArray[np.bool_]) -> ClickLog:
        """The log without the clicks that are False in this bool [T] mask; sessions left empty are dropped."""
        items, offsets = self.sessions.items, self.sessions.offsets
        kept_before = np.zeros(len(items) + 1, dtype=np.int64)
        np.cumsum(clicks, out=kept_before[1:])
        bounds = kept_before[offsets]
        nonempty = np.diff(bounds) > 0
        offsets = np.concatenate([[0], bounds[1:][nonempty]]).astype(np.int64)
        return ClickLog(Sessions(items[clicks], offsets), None if self.times is None else self.times[clicks])


def order_clicks(
    owners: npt.NDArray[np.integer], items: npt.NDArray[np.int32], times: npt.NDArray[np.float64] | None
) -> ClickLog:
    """Group loose clicks into sessions, each in time order; equal times keep the order of arrival.

    Args:
        owners: int [T], session of each click; sessions are numbered from 0 in order of first appearance.
        items: int32 [T], item index of each click.
        times: float64 [T] or None: order of arrival.
    """
    grouped = bool(np.all(owners[1:] >= owners[:-1]))
    if times is not None:
        same = owners[1:] == owners[:-1]
        grouped = grouped and bool(np.all((times[1:] >= times[:-1]) | ~same))
    if not grouped:
        order = np.argsort(owners, kind="stable") if times is None else np.lexsort((times, owners))
        owners, items = owners[order], items[order]
        times = None if times is None else times[order]
    lengths = np.bincount(owners)
    offsets = np.concatenate([[0], np.cumsum(lengths[lengths > 0], dtype=np.int64)]).astype(np.int64)
    return ClickLog(Sessions(items, offsets), times)
