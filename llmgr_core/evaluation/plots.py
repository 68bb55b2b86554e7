"""Plots for people, made from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmgr_core.evaluation.buckets import BUCKETS
from llmgr_core.evaluation.drawing import svg_figure
from llmgr_core.evaluation.tables import BUCKET_METRICS, MASKING_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MASKING = "masked"
LEAST_SHOWN = 20
# So far below everything else that its bar would squeeze the others flat; its row in the table says it.
LEFT_OUT_OF_DIFFERENCES = "popularity"


def plots(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every plot of every split: name (``test-buckets``, ``test-differences``, ...) and SVG text.

    The same results give the same bytes.

    Args:
        results: as in results.json.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    for split, found in results["splits"].items():
        groups = [name for name in ("all", *BUCKETS) if found["examples"].get(name, 0) >= LEAST_SHOWN]
        title = f"{split}, {MASKING_TITLES[MASKING]}"
        yield f"{split}-buckets", _figure(lambda axes, metric, g=groups, f=found: _levels(axes, f, g, metric), title)
        if found["differences"]:
            title = f"{title}: difference from {found['reference']}"
            yield f"{split}-differences", _figure(lambda axes, metric, g=groups, f=found: _gains(axes, f, g, metric), title)


def _figure(draw: Any, title: str) -> str:
    with svg_figure((11, 3.6)) as (figure, written):
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        for axes, metric in zip((left, right), BUCKET_METRICS, strict=True):
            draw(axes, metric)
            axes.set_title(metric)
            axes.set_xlabel("training clicks of the target")
            axes.grid(axis="y", alpha=0.3)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)
    return written()


def _levels(axes: Axes, found: Mapping[str, Any], groups: list[str], metric: str) -> None:
    """One group of bars a bucket, one bar a scorer."""
    scorers = found["scorers"]
    width = 0.8 / max(len(scorers), 1)
    for number, (name, facts) in enumerate(scorers.items()):
        values = [facts[MASKING].get(group, {}).get(metric) or 0.0 for group in groups]
        places = [place + (number - (len(scorers) - 1) / 2) * width for place in range(len(groups))]
        axes.bar(places, values, width, label=name, color=f"C{number}")
    _name_groups(axes, found, groups)


def _gains(axes: Axes, found: Mapping[str, Any], groups: list[str], metric: str) -> None:
    """Difference of each scorer from the reference with its interval."""
    differences = {name: one for name, one in found["differences"].items() if name != LEFT_OUT_OF_DIFFERENCES}
    colours = {name: f"C{number}" for number, name in enumerate(found["scorers"])}
    step = 0.8 / max(len(differences), 1)
    for number, (name, by_masking) in enumerate(differences.items()):
        places, means, below, above = [], [], [], []
        for place, group in enumerate(groups):
            value = by_masking[MASKING].get(group, {}).get(metric)
            if value is None or value["low"] is None or value["high"] is None:
                continue
            places.append(place + (number - (len(differences) - 1) / 2) * step)
            means.append(value["mean"])
            below.append(value["mean"] - value["low"])
            above.append(value["high"] - value["mean"])
        axes.errorbar(places, means, yerr=[below, above], fmt="o", markersize=4, capsize=3, label=name, color=colours[name])
    axes.axhline(0.0, color="black", linewidth=0.8)
    _name_groups(axes, found, groups)


def _name_groups(axes: Axes, found: Mapping[str, Any], groups: list[str]) -> None:
    axes.set_xticks(range(len(groups)), [f"{group}\nn={found['examples'][group]:,}" for group in groups])
