"""The rows of an experiment by their difference from what each is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmgr_core.evaluation.drawing import svg_figure
from llmgr_core.evaluation.tables import MASKING_TITLES


def row_plot(result: Mapping[str, Any], split: str, masking: str, metric: str) -> str:
    """One line a row, top to bottom as in the result: mean difference and its interval. SVG text.

    Args:
        result: of an experiment; ``rows`` and ``splits`` are read.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    found = result["splits"][split]
    shown = []
    for row in result["rows"]:
        value = found["differences"].get(row["name"], {}).get(masking, {}).get("all", {}).get(metric)
        if value is not None and value["low"] is not None:
            shown.append((f"{row['label']}  (against {found['references'][row['name']]})", value))
    with svg_figure((8.5, 1.4 + 0.26 * len(shown))) as (figure, written):
        axes = figure.subplots()
        figure.suptitle(f"Difference in {metric}, {split}, {MASKING_TITLES[masking]}")
        for place, (_, value) in enumerate(shown):
            clear = not value["low"] <= 0 <= value["high"]
            below, above = value["mean"] - value["low"], value["high"] - value["mean"]
            axes.errorbar(
                [value["mean"]],
                [place],
                xerr=[[below], [above]],
                fmt="o",
                markersize=4,
                capsize=3,
                color="C0" if clear else "0.6",
            )
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(shown)), [label for label, _ in shown])
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    return written()
