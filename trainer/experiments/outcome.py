"""The rows of an experiment side by side: levels, spread over seeds, differences with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmgr_core.evaluation import METRICS, PairedBootstrap, Ranks, per_example_metrics
from llmgr_core.evaluation.comparison import GROUPS, MASKINGS, compare_groups, examples_by_group

# Stands for the seed of a row without training.
UNTRAINED = -1


@dataclass
class RowRanks:
    """One row's ranks of one split.

    Attributes:
        name: of the row.
        reference: row it is compared with, "" for none.
        by_seed: ranks of each seed; a row without training has one, under UNTRAINED.
        also: further rows it is compared with.
    """

    name: str
    reference: str
    by_seed: dict[int, Ranks] = field(default_factory=dict)
    also: tuple[str, ...] = ()


def compare_rows(
    rows: list[RowRanks], train_counts: npt.NDArray[np.integer], bootstrap: PairedBootstrap, reference: str
) -> dict[str, Any]:
    """What ``compare`` gives for all rows, each compared with its own reference on the seeds that both have.

    Args:
        rows: those that were ranked, in the order of the table.
        train_counts: int [n], training clicks of each target.
        bootstrap: how intervals are made.
        reference: of the experiment, named in the result.

    Returns:
        As ``compare``, with ``references`` (by row), ``spread`` (standard deviation of each metric over seeds, by row and
        masking, where there are at least two), ``by_seed`` (metrics of each seed), and ``also`` (differences from further
        rows, by row and further row) where there are any.
    """
    members = dict(zip(GROUPS, examples_by_group(train_counts).T, strict=True))
    by_seed = {
        row.name: {masking: _by_seed(row, masking) for masking in MASKINGS} for row in rows if UNTRAINED not in row.by_seed
    }
    return {
        **compare_rows_in_groups(rows, members, bootstrap),
        "reference": reference or None,
        "spread": {name: {one: _spread(seeds[one]) for one in MASKINGS} for name, seeds in by_seed.items() if _many(seeds)},
        "by_seed": by_seed,
        **_further(rows, members, bootstrap),
    }


def _further(
    rows: list[RowRanks], members: Mapping[str, npt.NDArray[np.bool_]], bootstrap: PairedBootstrap
) -> dict[str, dict[str, dict[str, Any]]]:
    also: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row.also):
        again = [replace(row, reference=name if name in row.also else "") for row in rows]
        for row, other, mine, theirs in compared_pairs(again):
            found = compare_groups({row.name: mine, other.name: theirs}, members, other.name, bootstrap)
            also.setdefault(row.name, {})[other.name] = found["differences"][row.name]
    return {"also": also} if also else {}


def compare_rows_in_groups(
    rows: list[RowRanks], members: Mapping[str, npt.NDArray[np.bool_]], bootstrap: PairedBootstrap
) -> dict[str, Any]:
    """What ``compare_groups`` gives for all rows, each compared with its own reference; with ``references`` (by row)."""
    levels = compare_groups({row.name: list(row.by_seed.values()) for row in rows}, members, None, bootstrap)
    references: dict[str, str] = {}
    for row, other, mine, theirs in compared_pairs(rows):
        found = compare_groups({row.name: mine, other.name: theirs}, members, other.name, bootstrap)
        levels["differences"][row.name] = found["differences"][row.name]
        references[row.name] = other.name
    return {**levels, "references": references}


def compared_pairs(rows: list[RowRanks]) -> Iterator[tuple[RowRanks, RowRanks, list[Ranks], list[Ranks]]]:
    """Every row with the row it is compared with, and the ranks of both on the seeds that both have."""
    named = {row.name: row for row in rows}
    for row in rows:
        other = named.get(row.reference)
        if other is None:
            continue
        mine, theirs = _paired(row.by_seed, other.by_seed)
        if mine:
            yield row, other, mine, theirs


def _paired(mine: Mapping[int, Ranks], theirs: Mapping[int, Ranks]) -> tuple[list[Ranks], list[Ranks]]:
    """The seeds that both have; a row without training meets every seed of the other."""
    if UNTRAINED in mine or UNTRAINED in theirs:
        return list(mine.values()), list(theirs.values())
    both = [seed for seed in mine if seed in theirs]
    return [mine[seed] for seed in both], [theirs[seed] for seed in both]


def _by_seed(row: RowRanks, masking: str) -> dict[str, dict[str, float]]:
    means = {seed: per_example_metrics(ranks.of(masking)).mean(axis=0) for seed, ranks in row.by_seed.items()}
    return {str(seed): dict(zip(METRICS, values.tolist(), strict=True)) for seed, values in means.items()}


def _many(seeds: Mapping[str, Mapping[str, Any]]) -> bool:
    return len(seeds["masked"]) > 1


def _spread(seeds: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {metric: float(np.std([one[metric] for one in seeds.values()], ddof=1)) for metric in METRICS}
