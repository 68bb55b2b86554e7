"""Decayed transition counts of many sessions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmgr_core.sessions import Sessions
from llmgr_core.settings.transitions import TransitionSettings

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PAIRS_AT_ONCE = 5_000_000


def sum_by_key(keys: Ints, values: Floats) -> tuple[Ints, Floats]:
    """Distinct keys in ascending order, and the sum of the values under each."""
    distinct, where = np.unique(keys, return_inverse=True)
    sums = np.bincount(where, weights=values, minlength=len(distinct))
    return distinct.astype(np.int64), sums.astype(np.float64, copy=False)


def pairs_of_sessions(sessions: Sessions, settings: TransitionSettings) -> tuple[Ints, Ints, Floats]:
    """Every pair of clicks that a transition connects, forward ones and (where ``backward`` > 0) reversed ones.

    Returns:
        source item, target item (int64 [P]) and weight (float64 [P]); an item never leads to itself.
    """
    owner = np.repeat(np.arange(len(sessions), dtype=np.int64), sessions.lengths)
    items = sessions.items.astype(np.int64)
    longest = int(sessions.lengths.max(initial=0))
    sources, targets, weights = [], [], []
    for distance in range(1, min(settings.window, longest - 1) + 1):
        connected = (owner[distance:] == owner[:-distance]) & (items[distance:] != items[:-distance])
        places = np.flatnonzero(connected)
        weight = settings.distance_decay ** (distance - 1)
        for source, target, share in ((places, places + distance, 1.0), (places + distance, places, settings.backward)):
            if share > 0:
                sources.append(items[source])
                targets.append(items[target])
                weights.append(np.full(len(places), weight * share))
    if not sources:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, np.zeros(0)
    return np.concatenate(sources), np.concatenate(targets), np.concatenate(weights)


def count_transitions(sessions: Sessions, num_items: int, settings: TransitionSettings) -> tuple[Ints, Floats]:
    """Transition mass of every connected pair of items.

    Memory stays bounded by blocks of sessions: the pairs of one block plus the distinct pairs of all.

    Returns:
        keys: int64 [E], ``source * num_items + target``, ascending.
        mass: float64 [E].
    """
    merged: list[tuple[Ints, Floats]] = []
    clicks_at_once = max(PAIRS_AT_ONCE // (2 * settings.window), 1)
    start = 0
    while start < len(sessions):
        limit = sessions.offsets[start] + clicks_at_once
        end = max(int(np.searchsorted(sessions.offsets, limit, side="right")) - 1, start + 1)
        offsets = sessions.offsets[start : end + 1]
        block = Sessions(sessions.items[offsets[0] : offsets[-1]], offsets - offsets[0])
        source, target, weight = pairs_of_sessions(block, settings)
        merged.append(sum_by_key(source * num_items + target, weight))
        # Only sums of like size are merged, so that no pair is sorted more than a logarithmic number of times.
        while len(merged) > 1 and len(merged[-2][0]) < 2 * len(merged[-1][0]):
            merged[-2:] = [_merge(merged[-2:])]
        start = end
    return _merge(merged)


def _merge(parts: list[tuple[Ints, Floats]]) -> tuple[Ints, Floats]:
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    return sum_by_key(np.concatenate([keys for keys, _ in parts]), np.concatenate([mass for _, mass in parts]))
