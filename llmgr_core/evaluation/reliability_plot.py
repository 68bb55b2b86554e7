"""Stated probability against observed share, one line a scorer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmgr_core.evaluation.drawing import svg_figure
from llmgr_core.evaluation.tables import MASKING_TITLES


def reliability_plot(calibration: Mapping[str, Any], split: str, masking: str) -> str:
    """SVG text.

    Args:
        calibration: ``{scorer: {split: {masking: {"error": e, "bins": [...]}}}}`` (see reliability).

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    with svg_figure((5.6, 4.4)) as (figure, written):
        axes = figure.subplots()
        figure.suptitle(f"First item of each ranking, {split}, {MASKING_TITLES[masking]}")
        highest = 0.0
        for name, splits in calibration.items():
            found = splits[split][masking]
            stated = [one["stated"] for one in found["bins"]]
            observed = [one["observed"] for one in found["bins"]]
            axes.plot(stated, observed, marker="o", markersize=3, label=f"{name}, error {found['error']:.4f}")
            highest = max([highest, *stated, *observed])
        axes.plot([0, highest], [0, highest], color="black", linewidth=0.8, linestyle=":")
        axes.set_xlabel("stated probability, mean of the bin")
        axes.set_ylabel("share that came true")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    return written()
