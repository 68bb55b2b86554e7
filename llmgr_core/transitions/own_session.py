"""Taking one session's own transitions out of the graph, for the training examples cut from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmgr_core.sessions import Sessions
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions.counting import Ints, pairs_of_sessions, sum_by_key
from llmgr_core.transitions.lookup import ClickRows

# A difference below this share of the whole is rounding, not a transition.
ROUNDING = 1e-9


def leave_out_own_session(
    rows: ClickRows,
    owners: Ints,
    *,
    sessions: Sessions,
    indptr: Ints,
    neighbours: npt.NDArray[np.int32],
    mass: npt.NDArray[np.float64],
    clicks: Ints,
    settings: TransitionSettings,
) -> npt.NDArray[np.float64]:
    """Value of each entry of ``rows`` as if the session that owns its prefix had not been counted.

    W'[a, b] = (mass - own mass) / ((clicks(a) - own clicks(a))^alpha * (clicks(b) - own clicks(b))^beta). Only edges between
    two items of the owning session change by more than the factor of their source, so those alone are computed anew.

    Args:
        rows: entries of the prefixes.
        owners: int64 [B], place in ``sessions`` of the session each prefix was cut from.
        sessions, indptr, neighbours, mass, clicks, settings: of the graph.
    """
    num_items = len(indptr) - 1
    distinct, local = np.unique(owners, return_inverse=True)
    own = _select(sessions, distinct)
    own_session = np.repeat(np.arange(len(own), dtype=np.int64), own.lengths)
    own_keys, own_clicks = sum_by_key(own_session * num_items + own.items, np.ones(len(own.items)))

    # Every entry, with the damping of its source corrected.
    click_owner = local[rows.click_prefix]
    at_source = np.searchsorted(own_keys, click_owner * num_items + rows.click_item)
    source_left = np.maximum(clicks[rows.click_item] - own_clicks[at_source], 1.0) ** settings.source_damping
    click_factor = rows.click_factor / source_left
    target_damping = np.maximum(clicks, 1) ** float(settings.target_damping)
    values = click_factor[rows.click] * mass[rows.edges] / target_damping[neighbours[rows.edges]]

    # Entries that lead to another item of the owning session.
    counts = np.bincount(own_keys // num_items, minlength=len(own))
    first_key = np.cumsum(counts) - counts
    click = np.repeat(np.arange(len(click_owner)), counts[click_owner])
    start = np.cumsum(counts[click_owner]) - counts[click_owner]
    key_place = np.arange(len(click)) - start[click] + first_key[click_owner[click]]
    target = own_keys[key_place] % num_items
    source = rows.click_item[click]
    edge = _find_edges(indptr, neighbours, source, target)
    found = edge >= 0
    click, key_place, source, target, edge = click[found], key_place[found], source[found], target[found], edge[found]

    pair_session, pair_source, pair_target, pair_weight = pairs_of_sessions(own, settings)
    pair_keys, pair_mass = sum_by_key((pair_session * num_items + pair_source) * num_items + pair_target, pair_weight)
    wanted = (click_owner[click] * num_items + source) * num_items + target
    at = np.minimum(np.searchsorted(pair_keys, wanted), max(len(pair_keys) - 1, 0))
    own_mass = np.where(pair_keys[at] == wanted, pair_mass[at], 0.0) if len(pair_keys) else np.zeros(len(wanted))
    left = mass[edge] - own_mass
    left[left < ROUNDING * mass[edge]] = 0.0
    target_left = np.maximum(clicks[target] - own_clicks[key_place], 1.0) ** settings.target_damping
    values[rows.first[click] + edge - indptr[source]] = click_factor[click] * left / target_left
    return values


def _select(sessions: Sessions, which: Ints) -> Sessions:
    lengths = sessions.lengths[which]
    offsets = np.zeros(len(which) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    places = np.arange(offsets[-1]) + np.repeat(sessions.offsets[which] - offsets[:-1], lengths)
    return Sessions(sessions.items[places], offsets)


def _find_edges(indptr: Ints, neighbours: npt.NDArray[np.int32], source: Ints, target: Ints) -> Ints:
    """Place of each edge source -> target, -1 where there is none: all binary searches take their steps together."""
    low, high = indptr[source], indptr[source + 1]
    end = high.copy()
    while (low < high).any():
        middle = (low + high) // 2
        below = (low < high) & (neighbours[np.minimum(middle, len(neighbours) - 1)] < target)
        low, high = np.where(below, middle + 1, low), np.where(below | (low >= high), high, middle)
    hit = low < end
    hit[hit] = neighbours[low[hit]] == target[hit]
    return np.where(hit, low, -1)
