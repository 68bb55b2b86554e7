"""Blocks of the results page that are tables, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmgr_core.errors import InputError
from llmgr_core.evaluation.buckets import BUCKETS
from trainer.report.definition import BucketsBlock, Figure, FiguresBlock, LevelsBlock
from trainer.report.result_files import Provenance, ResultFiles

RESULTS_LINK = "../benchmarks/results"
COMMIT_DIGITS = 7
SHOWN_OF_VALUE = 60


def levels_table(block: LevelsBlock, files: ResultFiles) -> str:
    """Scorers by metrics."""
    rows = []
    for row in block.rows:
        place = ("splits", row.split or block.split, "scorers", row.scorer, block.masking, "all")
        values = files.at(row.file or block.file, place)
        cells = [row.label, *(level(_of(values, metric, row.label)) for metric in block.metrics)]
        rows.append([f"**{cell}**" for cell in cells] if row.bold else cells)
    if block.change is not None:
        place = ("splits", block.split, "differences", block.change.scorer, block.masking, "all")
        changes = files.at(block.file, place)
        rows.append([block.change.label, *(percent(_of(changes, metric, "change")["relative"]) for metric in block.metrics)])
    return markdown_table(["", *block.metrics], rows)


def buckets_table(block: BucketsBlock, files: ResultFiles) -> str:
    """Metrics and differences by training clicks of the target, or by how close its text is to that of a click."""
    by_clicks = block.by == "clicks"
    found = files.at(block.file, ("splits", block.split) if by_clicks else ("near_duplicates", "splits", block.split))
    groups = [name for name in (BUCKETS if by_clicks else found["examples"]) if found["examples"].get(name)]
    rows = []
    for row in block.levels:
        values = _of(found["scorers"], row.scorer, block.file)[block.masking]
        rows.append([row.label, *(level(values[group][row.metric]) for group in groups)])
    for row in block.differences:
        from_reference = _of(found.get("also", {}), row.scorer, block.file) if row.against else found["differences"]
        values = _of(from_reference, row.against or row.scorer, block.file)[block.masking]
        rows.append([row.label, *(difference(values[group][row.metric]) for group in groups)])
        rows.append(["interval", *(interval(values[group][row.metric]) for group in groups)])
    for row in block.shares:
        values = _of(found["share_of_gain"], row.scorer, block.file)[block.masking]
        rows.append([row.label, *("" if group == "all" else _share(values[group][row.metric]) for group in groups)])
    return markdown_table(["", *(f"{group} ({found['examples'][group]:,})" for group in groups)], rows)


def figures_table(block: FiguresBlock, files: ResultFiles) -> str:
    """Figures of many files."""
    rows = []
    for row in block.rows:
        if len(row.cells) != len(block.columns):
            raise InputError(f"row {row.label!r} has {len(row.cells)} cells for {len(block.columns)} columns")
        rows.append([row.label, *(_figure(cell, row.file, files) for cell in row.cells), file_link(row.file)])
    return markdown_table(["", *block.columns, "file"], rows)


def files_table(files: ResultFiles, exempt: Mapping[str, str]) -> str:
    """Every result file with what it says about itself."""
    rows = []
    for name in files.names():
        facts = Provenance.of(files[name])
        unknown = "unknown" if name in exempt else "-"
        commit = facts.commit or unknown
        head, plus, changes = commit.partition("+")
        shown = f"{head[:COMMIT_DIGITS] if facts.commit else commit}{plus}{changes}"
        command = f"`{facts.command}`" if facts.command else unknown
        rows.append([file_link(name), facts.seed or unknown, shown, facts.machine or unknown, command])
    return markdown_table(["file", "seeds", "commit", "machine", "command"], rows)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Header and rows between bars."""
    return "\n".join(_line(cells) for cells in (header, ["---"] * len(header), *rows))


def level(value: float | None) -> str:
    """A share as statisticians print it: .0670."""
    return "-" if value is None else f"{value:.4f}".removeprefix("0")


def signed(value: float) -> str:
    """+.0225, -.0013."""
    text = f"{value:+.4f}"
    return text[0] + text[1:].removeprefix("0")


def percent(value: float | None) -> str:
    """+24.6 %; "new" where there was nothing before."""
    return "new" if value is None else f"{100 * value:+.1f} %"


def difference(value: Mapping[str, float | None]) -> str:
    """Mean difference and relative change, bold where the interval leaves out zero."""
    mean, low, high = value["mean"], value["low"], value["high"]
    assert mean is not None
    shown = signed(mean)
    if low is not None and high is not None and not low <= 0 <= high:
        shown = f"**{shown}**"
    return shown if value["relative"] is None else f"{shown} ({percent(value['relative'])})"


def interval(value: Mapping[str, float | None]) -> str:
    """[+.0179, +.0278]; a dash where there was too little to draw from."""
    low, high = value["low"], value["high"]
    return "-" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def _share(value: Mapping[str, float | None]) -> str:
    """42 % [36, 47]; a dash where there was no gain to share out."""
    share, low, high = value["value"], value["low"], value["high"]
    return "-" if share is None or low is None or high is None else f"{share:.0%} [{low:.0%}, {high:.0%}]"


def file_link(name: str) -> str:
    """Link from the page to a result file."""
    return f"[{name}]({RESULTS_LINK}/{name})"


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {text} |" if (text := cell.replace("|", "\\|")) else " |" for cell in cells)


def _figure(cell: Figure, file: str, files: ResultFiles) -> str:
    values = [files.at(cell.file or file, place) for place in cell.of]
    try:
        return cell.text.format(*(value * cell.factor if isinstance(value, (int, float)) else value for value in values))
    except (IndexError, ValueError, KeyError, TypeError) as error:
        shown = ", ".join(str(value)[:SHOWN_OF_VALUE] for value in values)
        raise InputError(f"the text {cell.text!r} does not take the values {shown} of {file}: {error}") from None


def _of(values: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in values:
        raise InputError(f"{where}: there is no {key!r}", f"there are {', '.join(values)}")
    return values[key]
