"""Tables for people, made from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from llmgr_core.evaluation.buckets import BUCKETS
from llmgr_core.evaluation.metrics import METRICS

BUCKET_METRICS = ("HR@20", "NDCG@20")
MASKING_TITLES = {"masked": "seen items masked", "unmasked": "seen items not masked"}


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Every table of every split: metrics (both maskings), buckets, differences from the reference."""
    for split, found in results["splits"].items():
        for masking, title in MASKING_TITLES.items():
            yield _metrics_table(f"{split}, {title} ({found['examples']['all']:,} examples)", found, masking)
        yield _bucket_table(f"{split}, by training clicks of the target, {MASKING_TITLES['masked']}", found, "masked")
        if found["differences"]:
            confidence = results["protocol"].get("confidence")
            share = f"{confidence:.0%} " if confidence else ""
            yield _difference_table(f"{split}, difference from {found['reference']}, {share}paired bootstrap", found, "masked")
        if found.get("new_items"):
            yield _ratio_table(f"{split}, as a multiple of the nearest text, {MASKING_TITLES['masked']}", found["new_items"])
        if found.get("warm"):
            title = f"{split}, new items in the table over clicked items alone, {MASKING_TITLES['masked']}"
            yield _ratio_table(title, found["warm"])
        if found.get("retention"):
            yield _retention_table(f"{split}, retention: (student - backbone) / (teacher - backbone)", found, "masked")


def _metrics_table(title: str, found: Mapping[str, Any], masking: str) -> Table:
    table = _table(title, "scorer", *METRICS, "calibration error")
    for name, facts in found["scorers"].items():
        values = facts[masking].get("all", {})
        error = facts.get("calibration_error", {}).get(masking)
        table.add_row(_label(name, facts), *(_number(values.get(metric)) for metric in METRICS), _number(error))
    return table


def _bucket_table(title: str, found: Mapping[str, Any], masking: str) -> Table:
    sizes = found["examples"]
    columns = [f"{metric}\n{bucket}\nn={sizes[bucket]:,}" for metric in BUCKET_METRICS for bucket in BUCKETS]
    table = _table(title, "scorer", *columns)
    for name, facts in found["scorers"].items():
        values = [facts[masking].get(bucket, {}).get(metric) for metric in BUCKET_METRICS for bucket in BUCKETS]
        table.add_row(_label(name, facts), *(_number(value) for value in values))
    return table


def _difference_table(title: str, found: Mapping[str, Any], masking: str) -> Table:
    table = _table(title, "scorer", "metric", "all", *BUCKETS)
    for name, by_masking in found["differences"].items():
        for metric in BUCKET_METRICS:
            cells = [_interval(by_masking[masking].get(group, {}).get(metric)) for group in ("all", *BUCKETS)]
            table.add_row(name, metric, *cells)
    return table


def _ratio_table(title: str, ratios: Mapping[str, Any]) -> Table:
    table = _table(title, "scorer", *METRICS)
    for name, by_masking in ratios.items():
        table.add_row(name, *(_multiple(by_masking["masked"][metric]) for metric in METRICS))
    return table


def _retention_table(title: str, found: Mapping[str, Any], masking: str) -> Table:
    table = _table(title, "student", "metric", "all", *BUCKETS)
    for name, by_masking in found["retention"]["students"].items():
        for metric in BUCKET_METRICS:
            cells = [_share(by_masking[masking].get(group, {}).get(metric)) for group in ("all", *BUCKETS)]
            table.add_row(name, metric, *cells)
    gains = found["retention"]["teacher_gain"][masking]
    for metric in BUCKET_METRICS:
        cells = [_ends(gains.get(group, {}).get(metric)) for group in ("all", *BUCKETS)]
        table.add_row("teacher - backbone", metric, *cells)
    table.caption = "undefined: the teacher's gain is not above zero, by its interval in the last rows"
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _label(name: str, facts: Mapping[str, Any]) -> str:
    """Name of a scorer; beside it, where seeds share a ranking, how many there are."""
    if "different" not in facts:
        return name
    return f"{name} ({facts['different']} for {facts['seeds']} seeds)"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(value: Mapping[str, float | None] | None) -> str:
    if value is None:
        return "-"
    relative = value["relative"]
    change = f"{relative:+.1%}" if relative is not None else "new"
    mark = "" if value["low"] is None or value["high"] is None or value["low"] <= 0 <= value["high"] else " *"
    return f"{value['mean']:+.4f} {change}{mark}\n[{value['low']:+.4f}, {value['high']:+.4f}]"


def _ends(value: Mapping[str, float] | None) -> str:
    return "-" if value is None else f"{value['mean']:+.4f}\n[{value['low']:+.4f}, {value['high']:+.4f}]"


def _multiple(value: Mapping[str, float | None]) -> str:
    if value["ratio"] is None:
        return "-"
    low, high = ("unbounded" if value[end] is None else f"{value[end]:.3f}" for end in ("low", "high"))
    return f"{value['ratio']:.3f}\n[{low}, {high}]"


def _share(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    if "undefined" in value:
        return "undefined"
    low, high = ("unbounded" if value[end] is None else f"{value[end]:.0%}" for end in ("low", "high"))
    return f"{value['value']:.0%}\n[{low}, {high}]"
