"""Retention: how much of what the tuned language model gains over the backbone the online ranker keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmgr_core.evaluation.bootstrap import PairedBootstrap, bounded
from llmgr_core.evaluation.comparison import GROUPS, MASKINGS, NEAREST_TEXT, examples_by_group
from llmgr_core.evaluation.evaluate import Ranks
from llmgr_core.evaluation.metrics import METRICS, per_example_metrics
from llmgr_core.evaluation.new_items import AMONG_CLICKED

TEACHER, BACKBONE = "teacher", "backbone"
NOT_STUDENTS = (TEACHER, BACKBONE, NEAREST_TEXT, "popularity", "floor", "sknn")
Floats = npt.NDArray[np.float64]


def retention(
    ranks: Mapping[str, Sequence[Ranks]], train_counts: npt.NDArray[np.integer], bootstrap: PairedBootstrap
) -> dict[str, Any] | None:
    """(student - backbone) / (teacher - backbone) of every online ranker, overall and by bucket.

    All three are resampled together; an interval holds the percentiles of the ratio of the means of each draw. Where the
    interval of teacher - backbone reaches down to zero there is nothing to retain, and the ratio stays undefined.

    Args:
        ranks: by scorer, one Ranks a seed, all of the same n examples.
        train_counts: int [n], training clicks of each target.
        bootstrap: how the intervals are made.

    Returns:
        ``{"teacher_gain": {masking: {group: {metric: {"mean", "low", "high"}}}},
        "students": {name: {masking: {group: {metric: {"value", "low", "high"} or {"undefined": reason}}}}}}``; a bound that no
        number bounds is None. None where the teacher, the backbone or a student is missing.
    """
    students = [name for name in ranks if name not in NOT_STUDENTS and not name.endswith(AMONG_CLICKED)]
    if TEACHER not in ranks or BACKBONE not in ranks or not students or not len(train_counts):
        return None
    groups = examples_by_group(train_counts)
    gains: dict[str, Any] = {}
    kept: dict[str, dict[str, Any]] = {name: {} for name in students}
    for masking in MASKINGS:
        metrics = {
            name: np.mean([per_example_metrics(one.of(masking)) for one in ranks[name]], axis=0)
            for name in (TEACHER, BACKBONE, *students)
        }
        # [n, (1 + students) * M]: the teacher's gain, then each student's, drawn together
        columns = [metrics[name] - metrics[BACKBONE] for name in (TEACHER, *students)]
        observed, means = bootstrap.resampled_means(np.concatenate(columns, axis=1), groups)
        width = len(METRICS)
        present = [(place, group) for place, group in enumerate(GROUPS) if groups[:, place].any()]
        gains[masking] = {
            group: {
                metric: _difference(observed[place, column], means[:, place, column], bootstrap.ends)
                for column, metric in enumerate(METRICS)
            }
            for place, group in present
        }
        for number, name in enumerate(students, start=1):
            kept[name][masking] = {
                group: {
                    metric: _ratio(
                        observed[place, [number * width + column, column]],
                        means[:, place, [number * width + column, column]],
                        gains[masking][group][metric],
                        bootstrap.ends,
                    )
                    for column, metric in enumerate(METRICS)
                }
                for place, group in present
            }
    return {"teacher_gain": gains, "students": kept}


def _difference(mean: float, draws: Floats, ends: tuple[float, float]) -> dict[str, float]:
    low, high = np.nanquantile(draws, ends)
    return {"mean": float(mean), "low": float(low), "high": float(high)}


def _ratio(
    observed: Floats, draws: Floats, teacher_gain: Mapping[str, float], ends: tuple[float, float]
) -> dict[str, float | str | None]:
    """Numerators and denominators side by side: float64 [2] as observed, [resamples, 2] drawn."""
    if teacher_gain["high"] < 0:
        return {"undefined": "the teacher is worse than the backbone"}
    if teacher_gain["low"] <= 0:
        return {"undefined": "the interval of teacher - backbone includes zero"}
    draws = draws[~np.isnan(draws).any(axis=1)]
    numerator, denominator = draws[:, 0], draws[:, 1]
    # A draw without any gain of the teacher bounds nothing: its ratio is infinite, to the side of the student's gain.
    beyond = np.where(numerator < 0, -np.inf, np.inf)
    ratios = np.divide(numerator, denominator, out=beyond, where=denominator > 0)
    low, high = np.quantile(ratios, ends, method="nearest")
    return {"value": float(observed[0] / observed[1]), "low": bounded(low), "high": bounded(high)}
