"""Whether items near each other are alike: the paper's check by example (RQ5), over a sample of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from llmgr_core.evaluation.buckets import BUCKETS, bucket_of
from llmgr_core.explanation.click_evidence import sessions_together
from llmgr_core.explanation.neighbours import nearest_of_many
from llmgr_core.progress import Reporter
from trainer.explain.neighbourhood import MEANINGS, spaces

if TYPE_CHECKING:
    from trainer.explain.explained_run import ExplainedRun

KINDS = ("same_category", "same_brand", "clicked_together")
CHANCE = "any items"


@dataclass(frozen=True)
class CatalogueCheck:
    """Shares of neighbours that are alike, by space and by training clicks of the item.

    Attributes:
        items: how many items of the sample are in each bucket; "all" for all.
        shares: space -> bucket -> kind -> mean share of the k neighbours; NaN where no item could be judged.
        neighbours: k.
    """

    items: Mapping[str, int]
    shares: Mapping[str, Mapping[str, Mapping[str, float]]]
    neighbours: int


def check_catalogue(run: ExplainedRun, sample: int, k: int, seed: int, reporter: Reporter) -> CatalogueCheck:
    """Judge the k nearest neighbours of a random sample of items in every space, and of k items drawn at random.

    Items that one of the spaces does not know are left out of the sample, so that all spaces are judged on the same ones.
    """
    dataset = run.dataset
    generator = np.random.default_rng(seed)
    found = spaces(run)
    known = np.logical_and.reduce([space.known[: dataset.num_items] for space in found.values()])
    items = np.flatnonzero(known)
    items = np.sort(generator.choice(items, min(sample, len(items)), replace=False))
    k = min(k, max(int(known.sum()) - 1, 1))
    nearest = {name: nearest_of_many(space, items, k) for name, space in found.items()}
    nearest[CHANCE] = generator.choice(np.flatnonzero(known), (len(items), k))
    bucket = bucket_of(np.asarray(dataset.train_counts)[items])
    members = {"all": np.ones(len(items), dtype=np.bool_)} | {name: bucket == place for place, name in enumerate(BUCKETS)}
    alike = {name: np.full((len(KINDS), len(items)), np.nan) for name in nearest}
    for number, item in enumerate(reporter.track(items.tolist(), "neighbours", len(items))):
        others = np.concatenate([one[number] for one in nearest.values()])
        for place, judged in enumerate(_judge(run, item, others)):
            for name, one in zip(nearest, judged.reshape(len(nearest), k), strict=True):
                alike[name][place, number] = one.mean()
    shares = {
        name: {
            bucket: dict(zip(KINDS, _means(values[:, inside]), strict=True))
            for bucket, inside in members.items()
            if inside.any()
        }
        for name, values in alike.items()
    }
    return CatalogueCheck({bucket: int(inside.sum()) for bucket, inside in members.items() if inside.any()}, shares, k)


def catalogue_record(run: ExplainedRun, check: CatalogueCheck) -> dict[str, Any]:
    """The check as JSON."""
    from trainer.explain.records import number_or_none, ranker_record

    return {
        "ranker": ranker_record(run),
        "neighbours": check.neighbours,
        "items": dict(check.items),
        "meanings": {name: MEANINGS[name] for name in check.shares if name in MEANINGS},
        "shares": {
            name: {bucket: {kind: number_or_none(share) for kind, share in kinds.items()} for bucket, kinds in buckets.items()}
            for name, buckets in check.shares.items()
        },
    }


def catalogue_table(check: CatalogueCheck) -> Table:
    """One row a space, for all items and for each bucket of training clicks."""
    title = f"Of the {check.neighbours} nearest items of an item, how many are alike"
    table = Table(box=None, pad_edge=False, title=Text(title, style="bold"), title_justify="left", caption_justify="left")
    for place, name in enumerate(("training clicks", "items", "space", *(kind.replace("_", " ") for kind in KINDS))):
        table.add_column(name, justify="left" if place in {0, 2} else "right", no_wrap=True)
    for bucket in [one for one in ("all", *BUCKETS) if one in check.items]:
        for number, (name, buckets) in enumerate(check.shares.items()):
            first = [bucket, f"{check.items[bucket]:,}"] if number == 0 else ["", ""]
            shares = ["-" if np.isnan(share) else f"{100 * share:.1f} %" for share in buckets[bucket].values()]
            table.add_row(*first, name, *shares)
    table.caption = "clicked together: some training session holds both"
    return table


def _judge(run: ExplainedRun, item: int, others: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
    """For each of KINDS, 1 where an item is alike, 0 where not, NaN where the item itself has no category or brand."""
    dataset = run.dataset
    judged = []
    for codes in (dataset.category_codes, dataset.brand_codes):
        judged.append((codes[others] == codes[item]).astype(np.float64) if codes[item] >= 0 else np.full(len(others), np.nan))
    together = sessions_together(dataset.train, item, others, dataset.num_items)
    return [*judged, (together > 0).astype(np.float64)]


def _means(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(row[~np.isnan(row)].mean()) if (~np.isnan(row)).any() else float("nan") for row in values]
