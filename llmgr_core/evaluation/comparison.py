"""Several scorers on the same examples, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmgr_core.evaluation.bootstrap import PairedBootstrap
from llmgr_core.evaluation.buckets import BUCKETS, bucket_of
from llmgr_core.evaluation.evaluate import Ranks
from llmgr_core.evaluation.metrics import METRICS, per_example_metrics

MASKINGS = ("masked", "unmasked")
GROUPS = ("all", *BUCKETS)
# Ranks only where no target has a training click; there IDs say nothing.
NEAREST_TEXT = "nearest text"
REFERENCE_ORDER = (NEAREST_TEXT, "id-only", "backbone", "floor")


def choose_reference(wanted: str, names: Sequence[str]) -> str | None:
    """The scorer to compare with: the wanted one, or for "auto" the first of ``REFERENCE_ORDER`` that is there."""
    candidates = REFERENCE_ORDER if wanted == "auto" else (wanted,)
    return next((name for name in candidates if name in names), None)


def compare(
    ranks: Mapping[str, Sequence[Ranks]],
    train_counts: npt.NDArray[np.integer],
    reference: str | None,
    bootstrap: PairedBootstrap,
) -> dict[str, Any]:
    """Metrics of every scorer, overall and by bucket, and their differences from the reference with intervals.

    Args:
        ranks: by scorer, one Ranks a seed, all of the same n examples; metrics are averaged over the seeds example by
            example, so that an interval speaks of the mean model.
        train_counts: int [n], training clicks of each target.
        reference: name of the scorer the others are compared with, or None.
        bootstrap: how the intervals are made.

    Returns:
        ``{"examples": {group: n}, "scorers": {name: {masking: {group: {metric: value}}}}, "reference": name,
        "differences": {name: {masking: {group: {metric: {"mean", "low", "high", "relative"}}}}}}``; groups without examples
        are left out. A scorer has ``different``, the number of different rankings, where several seeds share one: a model that
        was trained once is the same for all.

    Raises:
        ValueError: a scorer ranked another number of examples.
    """
    return compare_groups(ranks, dict(zip(GROUPS, examples_by_group(train_counts).T, strict=True)), reference, bootstrap)


def compare_groups(
    ranks: Mapping[str, Sequence[Ranks]],
    members: Mapping[str, npt.NDArray[np.bool_]],
    reference: str | None,
    bootstrap: PairedBootstrap,
) -> dict[str, Any]:
    """``compare`` for any division of the examples.

    Args:
        ranks, reference, bootstrap: as there.
        members: bool [n] by group, which examples it holds; "all" holds every one.

    Returns:
        As ``compare``.

    Raises:
        ValueError: a scorer ranked another number of examples.
    """
    names, groups = list(members), np.stack(list(members.values()), axis=1)
    sizes = groups.sum(axis=0)
    values: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    scorers: dict[str, Any] = {}
    for name, seeds in ranks.items():
        if any(len(one) != len(groups) for one in seeds):
            raise ValueError(f"{name} ranked {[len(one) for one in seeds]} examples, not {len(groups)}")
        scorers[name] = {"seeds": len(seeds), "seconds": round(sum(one.seconds for one in seeds), 3)}
        different = len({one.masked.tobytes() + one.unmasked.tobytes() for one in seeds})
        if different < len(seeds):
            scorers[name]["different"] = different
        errors = [one.calibration_error for one in seeds if one.calibration_error]
        if errors:
            scorers[name]["calibration_error"] = {m: float(np.mean([error[m] for error in errors])) for m in MASKINGS}
        for masking in MASKINGS:
            metrics = np.mean([per_example_metrics(one.of(masking)) for one in seeds], axis=0)
            values[name, masking] = metrics
            scorers[name][masking] = {
                group: dict(zip(METRICS, metrics[groups[:, place]].mean(axis=0).tolist(), strict=True))
                for place, group in enumerate(names)
                if sizes[place]
            }
    result: dict[str, Any] = {
        "examples": {group: int(size) for group, size in zip(names, sizes, strict=True)},
        "scorers": scorers,
        "reference": reference,
        "differences": {},
    }
    if reference is None or not len(groups):
        return result
    for name in ranks:
        if name == reference:
            continue
        result["differences"][name] = {
            masking: _differences(values[name, masking], values[reference, masking], names, groups, bootstrap)
            for masking in MASKINGS
        }
    return result


def examples_by_group(train_counts: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """bool [n, 6]: everything, then one column a bucket."""
    bucket = bucket_of(train_counts)
    return np.stack([np.ones(len(bucket), dtype=np.bool_), *(bucket == place for place in range(len(BUCKETS)))], axis=1)


def _differences(
    values: npt.NDArray[np.float64],
    reference: npt.NDArray[np.float64],
    names: Sequence[str],
    groups: npt.NDArray[np.bool_],
    bootstrap: PairedBootstrap,
) -> dict[str, Any]:
    mean, low, high = bootstrap.intervals(values - reference, groups)
    found: dict[str, Any] = {}
    for place, group in enumerate(names):
        if not groups[:, place].any():
            continue
        base = reference[groups[:, place]].mean(axis=0)
        found[group] = {
            metric: {
                "mean": float(mean[place, column]),
                "low": float(low[place, column]),
                "high": float(high[place, column]),
                "relative": float(mean[place, column] / base[column]) if base[column] else None,
            }
            for column, metric in enumerate(METRICS)
        }
    return found
