"""The graph rows that the clicks of many prefixes point to, laid out flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.sessions import Sessions
from llmgr_core.settings.transitions import TransitionSettings

Ints = npt.NDArray[np.int64]
Row = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]
"""Items, ascending and distinct, and a weight of each."""


@dataclass(frozen=True)
class ClickRows:
    """One entry for each (click of a prefix, edge leaving its item).

    Attributes:
        num_prefixes: B.
        click_prefix: int64 [T], prefix number of each click looked up.
        click_factor: float64 [T], click_decay^(n - k) of each click.
        click: int64 [M], click of each entry.
        edges: int64 [M], edge of each entry (its place in the graph's ``neighbours``).
    """

    num_prefixes: int
    click_prefix: Ints
    click_factor: npt.NDArray[np.float64]
    click: Ints
    edges: Ints

    @property
    def prefix(self) -> Ints:
        """int64 [M], prefix number of each entry."""
        return self.click_prefix[self.click]

    @property
    def click_weights(self) -> npt.NDArray[np.float64]:
        """float64 [M], click_factor of each entry."""
        return self.click_factor[self.click]


def expand_clicks(indptr: Ints, prefixes: Sessions, settings: TransitionSettings) -> ClickRows:
    """Lay out the rows of the last ``settings.clicks`` clicks of each prefix."""
    lengths = prefixes.lengths
    prefix = np.repeat(np.arange(len(prefixes), dtype=np.int64), lengths)
    before_last = np.repeat(prefixes.offsets[1:], lengths) - 1 - np.arange(len(prefix))
    used = before_last < settings.clicks
    prefix, before_last = prefix[used], before_last[used]
    item = prefixes.items[used].astype(np.int64)
    counts = indptr[item + 1] - indptr[item]
    first = np.zeros(len(item) + 1, dtype=np.int64)
    np.cumsum(counts, out=first[1:])
    click = np.repeat(np.arange(len(item), dtype=np.int64), counts)
    edges = np.arange(first[-1]) + (indptr[item] - first[:-1])[click]
    return ClickRows(len(prefixes), prefix, settings.click_decay ** before_last.astype(np.float64), click, edges)


def sum_by_item(items: Sequence[npt.NDArray[np.integer]], weights: Sequence[npt.NDArray[np.float32]]) -> Row:
    """Distinct items of some rows, int32 ascending, and the sum of the weights of each, float32.

    Args:
        items: item indices of each row, ascending and distinct.
        weights: as many of each row.
    """
    if not items:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    if len(items) == 1:
        return items[0].astype(np.int32, copy=False), weights[0]
    flat, weight = np.concatenate(items), np.concatenate(weights)
    if not len(flat):
        return flat.astype(np.int32, copy=False), weight
    order = np.argsort(flat)
    ordered = flat[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return ordered[first].astype(np.int32, copy=False), np.add.reduceat(weight[order], first)
