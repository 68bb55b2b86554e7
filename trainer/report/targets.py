"""The block that sets what was aimed at beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmgr_core.errors import InputError
from trainer.report.definition import TargetRow, TargetsBlock
from trainer.report.result_files import ResultFiles
from trainer.report.tables import file_link, level, markdown_table, signed

HEADINGS = ("", "aimed at", "measured", "95 % interval", "reached", "file")


def targets_table(block: TargetsBlock, files: ResultFiles) -> str:
    """A line a target: what was aimed at, what was measured, and whether that is enough."""
    return markdown_table(HEADINGS, [_row(row, files) for row in block.rows])


def _row(row: TargetRow, files: ResultFiles) -> list[str]:
    value, low, high = _measured(row, files)
    shown = "" if low is None or high is None else f"[{_text(row, low)}, {_text(row, high)}]"
    return [row.label, _aim(row), _text(row, value), shown, _verdict(row, value, low, high), file_link(row.file)]


def _measured(row: TargetRow, files: ResultFiles) -> tuple[float, float | None, float | None]:
    """Value and bounds, in the unit of the target.

    Raises:
        InputError: nothing is measured there, or no change relative to the reference.
    """
    found: Any = files.at(row.file, row.of)
    if not isinstance(found, Mapping):
        return found - (files.at(row.file, row.minus) if row.minus else 0.0), None, None
    if row.measure == "change":
        if not found["mean"] or found["relative"] is None:
            raise InputError(f"{row.label!r}: there is no relative change in {row.file}", 'take measure = "difference"')
        # The interval is of the difference; the reference's level, by which both are divided, is taken as it stands.
        scale = found["relative"] / found["mean"]
        return found["relative"], found["low"] * scale, found["high"] * scale
    value = next((found[key] for key in ("mean", "ratio", "value") if key in found), None)
    if value is None:
        raise InputError(f"{row.label!r}: {row.file} has no number there", f"it has {', '.join(found)}")
    return value, found["low"], found["high"]


def _aim(row: TargetRow) -> str:
    aim = _text(row, row.aim)
    return {"value": f"at least {aim}", "low": f"above {aim}, with its interval", "high": f"not shown to be below {aim}"}[
        row.judged_by
    ]


def _verdict(row: TargetRow, value: float, low: float | None, high: float | None) -> str:
    judged = {"value": value, "low": low, "high": high}[row.judged_by]
    assert judged is not None, "the definition lets bounds be judged where there are some"
    reached = judged > row.aim if row.judged_by == "low" else judged >= row.aim
    if reached:
        within = "; its interval reaches below" if row.judged_by == "value" and low is not None and low < row.aim else ""
        return "yes" if row.judged_by == "high" else f"yes, by {_distance(row, judged - row.aim)}{within}"
    if row.judged_by == "low" and value > row.aim:
        return f"**not shown**: the interval reaches {_distance(row, row.aim - judged)} below"
    within = "; its interval reaches there" if row.judged_by == "value" and high is not None and high >= row.aim else ""
    return f"**no**, {_distance(row, row.aim - judged)} short{within}"


def _text(row: TargetRow, value: float) -> str:
    if row.measure == "change":
        return f"{100 * value:+.1f} %"
    if row.measure == "share":
        return f"{100 * value:.0f} %"
    if row.measure == "ratio":
        return f"{value:.3f}"
    if row.measure == "difference":
        return signed(value) if value else "0"
    return level(value) if value else "0"


def _distance(row: TargetRow, value: float) -> str:
    if row.measure == "change":
        return f"{100 * value:.1f} points"
    if row.measure == "share":
        return f"{100 * value:.0f} points"
    return f"{value:.3f}" if row.measure == "ratio" else level(value)
