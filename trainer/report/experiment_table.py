"""Blocks of the results page that show an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.report.definition import ExperimentBlock
from trainer.report.result_files import ResultFiles
from trainer.report.tables import difference, file_link, interval, level, markdown_table

HEADINGS = {
    "seeds": ("seeds",),
    "spread": ("sd of {metric} over seeds",),
    "calibration": ("calibration error",),
    "cost": ("CPU minutes", "trained parameters", "ms a session"),
    "budget": ("tuning budget",),
}


def experiment_block(block: ExperimentBlock, files: ResultFiles) -> str:
    """The table of an experiment, and the rows that were not run; without a result, how to get one."""
    if not files.exists(block.file):
        return f"Not run yet: `{block.command}` makes {block.file}."
    result = files[block.file]
    found = files.at(block.file, ("splits", block.split))
    rows = []
    for row in result["rows"]:
        if row["name"] in found["scorers"]:
            rows += [_row(block, row, found), *_also(block, row, found)]
    compared = f"{block.difference} against" + ("" if block.bucket == "all" else f", targets with {block.bucket} clicks")
    extra = [heading.format(metric=block.difference) for one in block.extra for heading in HEADINGS[one]]
    table = markdown_table(["", *block.metrics, compared, "difference", "95 % interval", *extra], rows)
    lines = [table]
    if result["not_run"]:
        missing = "; ".join(_missing(row) for row in result["not_run"])
        lines += ["", f"Not run: {missing}."]
    examples = found["examples"][block.bucket]
    seen = "seen items masked" if block.masking == "masked" else "seen items not masked"
    lines += ["", f"{result['title']}; {examples:,} examples ({block.split}), {seen}; {file_link(block.file)}."]
    return "\n".join(lines)


def _row(block: ExperimentBlock, row: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    name = row["name"]
    scorer = found["scorers"][name]
    values = scorer[block.masking]["all"]
    compared = found["differences"].get(name, {}).get(block.masking, {}).get(block.bucket, {}).get(block.difference)
    reference = found["references"].get(name) or ""
    cells = [row["label"], *(level(values[metric]) for metric in block.metrics)]
    cells += [reference, difference(compared) if compared else "", interval(compared) if compared else ""]
    for one in block.extra:
        if one == "seeds":
            cells.append(", ".join(str(seed) for seed in row["seeds"]) or "-")
        elif one == "spread":
            spread = found["spread"].get(name, {}).get(block.masking, {}).get(block.difference)
            cells.append("-" if spread is None else level(spread))
        elif one == "calibration":
            cells.append(level(scorer.get("calibration_error", {}).get(block.masking)))
        elif one == "budget":
            cells.append(_budget(row))
        else:
            cells += _cost(row.get("cost") or {})
    return cells


def _also(block: ExperimentBlock, row: Mapping[str, Any], found: Mapping[str, Any]) -> list[list[str]]:
    """A line for each further row that a row is compared with: the comparison alone."""
    empty = [""] * sum(len(HEADINGS[one]) for one in block.extra)
    lines = []
    for other, differences in found.get("also", {}).get(row["name"], {}).items():
        compared = differences[block.masking][block.bucket][block.difference]
        lines.append(["the same", *[""] * len(block.metrics), other, difference(compared), interval(compared), *empty])
    return lines


def _cost(cost: Mapping[str, Any]) -> list[str]:
    parameters, request = cost.get("parameters"), cost.get("request_ms")
    return [
        _minutes(cost),
        "-" if parameters is None else f"{parameters:,}",
        "-" if request is None else f"{request:.2f}",
    ]


def _budget(row: Mapping[str, Any]) -> str:
    """Budget of a row's sweep; where the experiment itself trained the settings found once more, what that took too."""
    budget, cost = row.get("budget"), row.get("cost") or {}
    if not budget:
        return "-"
    again = cost.get("epochs") is not None and cost.get("seconds") is not None
    return f"{budget}; then {cost['epochs']} epochs, {cost['seconds'] / 60:.0f} min" if again else str(budget)


def _minutes(cost: Mapping[str, Any]) -> str:
    """CPU minutes of all steps of a row; where the run itself trained it, what that training took by the clock."""
    if cost.get("cpu_seconds") is not None:
        return f"{cost['cpu_seconds'] / 60:.1f}"
    seconds = cost.get("training_seconds")
    return "-" if seconds is None else f"{seconds / 60:.1f} wall"


def _missing(row: Mapping[str, Any]) -> str:
    seeds = row.get("seeds") or []
    named = f" (seed {', '.join(str(seed) for seed in seeds)})" if seeds else ""
    why = f": {row['why']}" if row.get("why") else ""
    return f"{row['label']}{named}{why}"
