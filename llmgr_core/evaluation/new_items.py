"""Items that training never saw: how well they are found, and what having them in the table costs the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmgr_core.evaluation.bootstrap import PairedBootstrap, bounded
from llmgr_core.evaluation.comparison import MASKINGS, NEAREST_TEXT
from llmgr_core.evaluation.evaluate import Ranks
from llmgr_core.evaluation.metrics import METRICS, per_example_metrics
from llmgr_core.evaluation.scorers import Scorer
from llmgr_core.sessions import Examples

AMONG_CLICKED = " among clicked items"
SMALLEST_NORM = 1e-12
Floats = npt.NDArray[np.float64]


class NearestTextScorer:
    """Text alone: cosine of an item to the clicks of the prefix, each ``decay`` times the next one's weight.

    score(s, v) = sum_k decay^(n - k) cos(u_{v_k}, u_v)

    Args:
        vectors: u_v, float [V, r].
        present: bool [V], items with text; others stand last.
        decay: 1 weighs all clicks alike.
        clicks: last clicks that count.
    """

    name = NEAREST_TEXT

    def __init__(
        self, vectors: npt.NDArray[np.floating], present: npt.NDArray[np.bool_], decay: float = 1.0, clicks: int = 20
    ) -> None:
        raw = vectors.astype(np.float32)
        unit = np.where(present[:, None], raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), SMALLEST_NORM), 0.0)
        self._unit = torch.from_numpy(unit.astype(np.float32))
        self._absent = torch.from_numpy(np.flatnonzero(~present))
        self._decay, self._clicks = decay, clicks

    def scores(self, examples: Examples) -> Tensor:
        prefixes = examples.prefixes(self._clicks)
        owner = np.repeat(np.arange(len(prefixes)), prefixes.lengths)
        before_last = prefixes.offsets[1:][owner] - 1 - np.arange(len(owner))
        weights = torch.from_numpy((self._decay**before_last).astype(np.float32))
        clicked = self._unit[torch.from_numpy(prefixes.items.astype(np.int64))] * weights[:, None]
        sessions = torch.zeros(len(prefixes), self._unit.shape[1]).index_add_(0, torch.from_numpy(owner), clicked)
        return (sessions @ self._unit.T).index_fill_(1, self._absent, -torch.inf)


class AmongClicked:
    """A scorer whose table lacks the items without a training click.

    Args:
        scorer: of the whole catalogue.
        train_counts: int [V], training clicks.
    """

    def __init__(self, scorer: Scorer, train_counts: npt.NDArray[np.integer]) -> None:
        self.name = scorer.name + AMONG_CLICKED
        self._scorer = scorer
        self._never_clicked = torch.from_numpy(np.flatnonzero(np.asarray(train_counts) == 0))

    def scores(self, examples: Examples) -> Tensor:
        return self._scorer.scores(examples).index_fill(1, self._never_clicked, -torch.inf)


def found_new_items(ranks: Mapping[str, Sequence[Ranks]], bootstrap: PairedBootstrap) -> dict[str, Any] | None:
    """Every scorer's metrics on new targets as a multiple of those of the nearest text.

    Args:
        ranks: by scorer, one Ranks a seed, all of the same n examples, whose targets training never saw.
        bootstrap: how the intervals are made; both scorers are resampled together.

    Returns:
        ``{name: {masking: {metric: {"value", "nearest", "ratio", "low", "high"}}}}``; a ratio to nothing is None. None where
        nobody ranked by the nearest text.
    """
    if NEAREST_TEXT not in ranks:
        return None
    return _ratios({name: (name, NEAREST_TEXT) for name in ranks if name != NEAREST_TEXT}, ranks, "nearest", bootstrap)


def warm_change(
    ranks: Mapping[str, Sequence[Ranks]], train_counts: npt.NDArray[np.integer], bootstrap: PairedBootstrap
) -> dict[str, Any] | None:
    """What new items in the table leave of the metrics of clicked targets.

    Args:
        ranks: by scorer, one Ranks a seed, all of the same n examples.
        train_counts: int [n], training clicks of each target; one without any, which only the whole table holds, is left out.
        bootstrap: how the intervals are made; both tables are resampled together.

    Returns:
        ``{name: {masking: {metric: {"value", "without", "ratio", "low", "high"}}}}`` of every scorer that ranked both ways;
        None where none did.
    """
    pairs = {name: (name, name + AMONG_CLICKED) for name in ranks if name + AMONG_CLICKED in ranks}
    clicked = np.flatnonzero(train_counts > 0)
    if not pairs or not len(clicked):
        return None
    kept = {name: [one.select(clicked) for one in ranks[name]] for pair in pairs.values() for name in pair}
    return _ratios(pairs, kept, "without", bootstrap)


def _ratios(
    pairs: Mapping[str, tuple[str, str]], ranks: Mapping[str, Sequence[Ranks]], below: str, bootstrap: PairedBootstrap
) -> dict[str, Any]:
    result: dict[str, Any] = {name: {} for name in pairs}
    for name, pair in pairs.items():
        for masking in MASKINGS:
            columns = [np.mean([per_example_metrics(one.of(masking)) for one in ranks[who]], axis=0) for who in pair]
            everything = np.ones((len(columns[0]), 1), dtype=np.bool_)
            observed, draws = bootstrap.resampled_means(np.concatenate(columns, axis=1), everything)
            above, under = draws[:, 0, : len(METRICS)], draws[:, 0, len(METRICS) :]
            drawn = np.divide(above, under, out=np.full_like(above, np.inf), where=under > 0)
            low, high = np.quantile(drawn, bootstrap.ends, axis=0, method="nearest")
            result[name][masking] = {
                metric: {
                    "value": float(observed[0, place]),
                    below: (base := float(observed[0, len(METRICS) + place])),
                    "ratio": float(observed[0, place]) / base if base else None,
                    "low": bounded(low[place]),
                    "high": bounded(high[place]),
                }
                for place, metric in enumerate(METRICS)
            }
    return result
