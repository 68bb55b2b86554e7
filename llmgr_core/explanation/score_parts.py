"""A score taken apart: what the ID, the text and the transitions of an item add to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmgr_core.ranker.snapshot import Snapshot

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SMALLEST_NORM = 1e-6
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class ScoreParts:
    """score_v = id_v + text_v + transitions_v, exactly: the logit is linear in c_v = x_v + t_v.

        q = scale z_s / (|z_s| temperature)          without the scale and both lengths where logits are inner products
        id_v = <q, x_v> / |c_v|     text_v = <q, t_v> / |c_v|     transitions_v = w log(1 + c t(s, v)) / temperature

    Attributes:
        id, text, transitions: float32 [m]. An item without an ID vector has s t_v for its row, all of it text.
    """

    id: Floats
    text: Floats
    transitions: Floats

    @property
    def score(self) -> Floats:
        """float32 [m], their sum."""
        total: Floats = self.id + self.text + self.transitions
        return total


def session_query(snapshot: Snapshot, clicks: Indices) -> Floats | None:
    """q, float32 [d]; None where no click has a row, so that the ranking falls back to popularity.

    Args:
        clicks: int64, known items in click order.
    """
    encoded = snapshot.encoded_clicks(clicks)
    if not len(encoded):
        return None
    parts = snapshot.parts
    nodes, click_nodes = np.unique_inverse(encoded)
    vector = parts.session_vector(snapshot.rows.vectors(nodes), click_nodes)
    factor = 1.0 / parts.scoring.temperature
    if parts.cosine:
        factor *= parts.logit_scale / max(float(np.sqrt(vector @ vector)), SMALLEST_NORM)
    query: Floats = vector * np.float32(factor)
    return query


def row_parts(snapshot: Snapshot, items: Indices) -> tuple[Floats, Floats]:
    """The ID part x_v (zeros without one) and the text part c_v - x_v of rows: float32 [m, d] each."""
    rows = snapshot.rows.vectors(items)
    known = items < snapshot.parts.num_items
    known[known] = snapshot.parts.has_id[items[known]]
    # Deleted text leaves x_v alone, no row at all leaves zeros: neither has an ID part that the row does not hold.
    known &= np.any(rows != 0.0, axis=1)
    ids = np.zeros_like(rows)
    ids[known] = snapshot.parts.id_vectors[items[known]]
    if snapshot.parts.transform is None:
        return rows, np.zeros_like(rows)
    return ids, rows - ids


def score_parts(snapshot: Snapshot, clicks: Indices, items: Indices) -> ScoreParts | None:
    """The parts of the scores of some items after these clicks; None where no click has a row.

    Args:
        clicks: int64, known items in click order.
        items: int64 [m].
    """
    query = session_query(snapshot, clicks)
    if query is None:
        return None
    ids, texts = row_parts(snapshot, items)
    if snapshot.parts.cosine:
        lengths = np.maximum(np.linalg.norm(ids + texts, axis=1), np.float32(SMALLEST_NORM))[:, None]
        ids, texts = ids / lengths, texts / lengths
    return ScoreParts(ids @ query, texts @ query, values_at(items, *snapshot.transition_terms(clicks)))


def average_parts(snapshot: Snapshot, clicks: Indices) -> ScoreParts | None:
    """Mean of the parts over all items that may be ranked, float32 [1] each: what any item gets."""
    rankable = np.setdiff1d(np.arange(snapshot.num_items), snapshot.unrankable)
    sums, count = np.zeros(3), max(len(rankable), 1)
    for start in range(0, len(rankable), ROWS_AT_ONCE):
        found = score_parts(snapshot, clicks, rankable[start : start + ROWS_AT_ONCE])
        if found is None:
            return None
        sums += [found.id.sum(dtype=np.float64), found.text.sum(dtype=np.float64), found.transitions.sum(dtype=np.float64)]
    means = (sums / count).astype(np.float32)
    return ScoreParts(means[:1], means[1:2], means[2:])


def values_at(items: Indices, known: npt.NDArray[np.integer], values: Floats) -> Floats:
    """Values of sparse entries (``known`` rising) at ``items``, zero elsewhere: float32 [m]."""
    found = np.zeros(len(items), dtype=np.float32)
    if len(known):
        places = np.minimum(np.searchsorted(known, items), len(known) - 1)
        match = known[places] == items
        found[match] = values[places[match]]
    return found
