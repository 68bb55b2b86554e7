"""How close the target of an example is to what was clicked before it, by text: is a gain more than "another shade of it"?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmgr_core.evaluation.bootstrap import PairedBootstrap
from llmgr_core.evaluation.comparison import MASKINGS
from llmgr_core.evaluation.evaluate import Ranks
from llmgr_core.evaluation.metrics import METRICS, per_example_metrics
from llmgr_core.sessions import Examples

# Fixed by reading pairs of catalogue items of amazon-beauty, before any ranking was looked at: from .9 on mostly the same
# product in another shade, size or pack; from .8 to .9 mostly another product of the line or the brand.
CLOSE, NEAR_DUPLICATE = 0.8, 0.9
CLOSENESS_GROUPS = ("other", "close", "near-duplicate")
SMALLEST_NORM = 1e-12

Members = dict[str, npt.NDArray[np.bool_]]


def nearest_click(
    examples: Examples, vectors: npt.NDArray[np.floating], present: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """max_k cos(e_{v_k}, e_v) over the clicks v_k of the prefix that are not the target v itself.

    Args:
        examples: n of them; every click of a prefix counts.
        vectors: e_v of the untuned language model, float [V, D].
        present: bool [V], items with a text vector.

    Returns:
        float32 [n]; -1 where the target, or every other click, has no text.
    """
    raw = vectors.astype(np.float32)
    unit = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), SMALLEST_NORM)
    prefixes = examples.prefixes()
    owner = np.repeat(np.arange(len(examples), dtype=np.int64), prefixes.lengths)
    target = examples.targets[owner]
    known = np.flatnonzero(present[prefixes.items] & present[target] & (prefixes.items != target))
    nearest = np.full(len(examples), -1.0, dtype=np.float32)
    cosines = np.einsum("md,md->m", unit[prefixes.items[known]], unit[target[known]])
    np.maximum.at(nearest, owner[known], cosines)
    return nearest


def groups_by_closeness(nearest: npt.NDArray[np.floating]) -> Members:
    """Every example, and those under .8, from .8 to .9, and from .9 on: float [n] -> bool [n] each."""
    place = np.searchsorted((CLOSE, NEAR_DUPLICATE), nearest, side="right")
    return {
        "all": np.ones(len(nearest), dtype=np.bool_),
        **{group: place == number for number, group in enumerate(CLOSENESS_GROUPS)},
    }


def share_of_gain(
    mine: Sequence[Ranks], theirs: Sequence[Ranks], members: Members, bootstrap: PairedBootstrap
) -> dict[str, Any]:
    """Which share of the summed difference of two scorers falls on each group.

    share(g) = sum_{i in g} (m_i - r_i) / sum_i (m_i - r_i); numerator and denominator are resampled together.

    Args:
        mine, theirs: one Ranks a seed of each scorer, all of the same n examples; means over seeds are compared.
        members: bool [n] by group.
        bootstrap: how intervals are made.

    Returns:
        ``{masking: {group: {metric: {"value", "low", "high"}}}}``; None for all three where the interval of the whole
        difference holds zero: of no gain there is no share.
    """
    names, groups = list(members), np.stack(list(members.values()), axis=1).astype(np.float64)
    everything = np.ones((len(groups), 1), dtype=np.bool_)
    found: dict[str, Any] = {}
    for masking in MASKINGS:
        gain = _means(mine, masking) - _means(theirs, masking)
        columns = np.concatenate([gain, *(gain * groups[:, [place]] for place in range(len(names)))], axis=1)
        observed, draws = bootstrap.resampled_means(columns, everything)
        # [1 + groups, M], and the same of every draw; the whole gain comes first
        value, drawn = (array.reshape(-1, len(names) + 1, len(METRICS)) for array in (observed, draws))
        low, high = np.quantile(drawn[:, 0], bootstrap.ends, axis=0)
        found[masking] = {group: {} for group in names}
        for column, metric in enumerate(METRICS):
            whole = drawn[:, 0, column]
            for place, group in enumerate(names, start=1):
                if low[column] <= 0 <= high[column]:
                    found[masking][group][metric] = {"value": None, "low": None, "high": None}
                    continue
                shares = np.divide(drawn[:, place, column], whole, out=np.full_like(whole, np.nan), where=whole != 0)
                ends = np.nanquantile(shares, bootstrap.ends)
                share = float(value[0, place, column] / value[0, 0, column])
                found[masking][group][metric] = {"value": share, "low": float(ends[0]), "high": float(ends[1])}
    return found


def _means(ranks: Sequence[Ranks], masking: str) -> npt.NDArray[np.float64]:
    """Metrics of each example, float64 [n, M], averaged over the seeds."""
    means: npt.NDArray[np.float64] = np.mean([per_example_metrics(one.of(masking)) for one in ranks], axis=0)
    return means
