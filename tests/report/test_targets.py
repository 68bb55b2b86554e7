"""What was aimed at beside what was measured: nothing missed is called reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmgr_core.errors import InputError
from trainer.report.definition import TargetRow, TargetsBlock, read_definition
from trainer.report.result_files import ResultFiles
from trainer.report.targets import targets_table

ROOT = Path(__file__).resolve().parents[2]
CHANGE = {"mean": 0.012, "low": 0.006, "high": 0.015, "relative": 0.24}
NOTHING = {"mean": 0.0002, "low": -0.0003, "high": 0.0006, "relative": 0.002}
LOSS = {"mean": -0.02, "low": -0.03, "high": -0.01, "relative": -0.1}
RATIO = {"value": 0.1, "without": 0.2, "ratio": 0.409, "low": 0.35, "high": 0.474}
SHARE = {"value": 1.77, "low": 0.82, "high": 3.65}


def line(tmp_path: Path, found: Any, aim: float, **more: Any) -> list[str]:
    (tmp_path / "x.json").write_text(json.dumps({"found": found, "other": 0.0602}))
    row = TargetRow.model_validate({"label": "l", "file": "x.json", "of": ["found"], "aim": aim, **more})
    table = targets_table(TargetsBlock(kind="targets", rows=(row,)), ResultFiles(tmp_path))
    return [cell.strip() for cell in table.splitlines()[2].split("|")[2:-2]]


@pytest.mark.parametrize(
    ("found", "aim", "more", "shown"),
    [
        (0.0671, 0.066, {}, ["at least .0660", ".0671", "", "yes, by .0011"]),
        (0.0671, 0.07, {}, ["at least .0700", ".0671", "", "**no**, .0029 short"]),
        (0.0653, 0.0, {"minus": ["other"]}, ["at least 0", ".0051", "", "yes, by .0051"]),
        (
            CHANGE,
            0.12,
            {"measure": "change"},
            ["at least +12.0 %", "+24.0 %", "[+12.0 %, +30.0 %]", "yes, by 12.0 points"],
        ),
        (
            CHANGE,
            0.2,
            {"measure": "change"},
            ["at least +20.0 %", "+24.0 %", "[+12.0 %, +30.0 %]", "yes, by 4.0 points; its interval reaches below"],
        ),
        (
            CHANGE,
            0.25,
            {"measure": "change"},
            ["at least +25.0 %", "+24.0 %", "[+12.0 %, +30.0 %]", "**no**, 1.0 points short; its interval reaches there"],
        ),
        (
            CHANGE,
            0.4,
            {"measure": "change"},
            ["at least +40.0 %", "+24.0 %", "[+12.0 %, +30.0 %]", "**no**, 16.0 points short"],
        ),
        (SHARE, 0.8, {"measure": "share"}, ["at least 80 %", "177 %", "[82 %, 365 %]", "yes, by 97 points"]),
        (RATIO, 1.3, {"measure": "ratio"}, ["at least 1.300", "0.409", "[0.350, 0.474]", "**no**, 0.891 short"]),
    ],
)
def test_a_value_is_set_beside_its_aim(tmp_path: Path, found: Any, aim: float, more: dict[str, Any], shown: list[str]) -> None:
    assert line(tmp_path, found, aim, **more) == shown


@pytest.mark.parametrize(
    ("found", "judged_by", "verdict"),
    [
        (CHANGE, "low", "yes, by .0060"),
        (NOTHING, "low", "**not shown**: the interval reaches .0003 below"),
        (LOSS, "low", "**no**, .0300 short"),
        (NOTHING, "high", "yes"),
        (LOSS, "high", "**no**, .0100 short"),
    ],
)
def test_the_bound_that_is_asked_for_is_judged(tmp_path: Path, found: Any, judged_by: str, verdict: str) -> None:
    assert line(tmp_path, found, 0.0, measure="difference", judged_by=judged_by)[-1] == verdict


@pytest.mark.parametrize(
    ("found", "measure", "complaint"),
    [
        ({**NOTHING, "mean": 0.0, "relative": 0.0}, "change", "no relative change"),
        ({**CHANGE, "relative": None}, "change", "no relative change"),
        ({"low": 0.1, "high": 0.2}, "share", "no number there"),
    ],
)
def test_where_nothing_is_measured_the_target_is_named(tmp_path: Path, found: Any, measure: str, complaint: str) -> None:
    with pytest.raises(InputError, match=f"'l': .*{complaint}"):
        line(tmp_path, found, 0.1, measure=measure)


def test_a_level_has_no_bound_to_judge() -> None:
    with pytest.raises(ValueError, match="has no interval"):
        TargetRow(label="l", file="x.json", of=("a",), aim=0.0, judged_by="low")


def test_the_page_says_of_every_target_of_the_project_whether_it_is_reached() -> None:
    page = ROOT / "docs" / "results.md"
    block = read_definition(page.with_suffix(".toml")).block["targets"]
    assert isinstance(block, TargetsBlock)
    lines = targets_table(block, ResultFiles(ROOT / "benchmarks" / "results")).splitlines()[2:]
    assert len(lines) == len(block.rows) == 31
    assert all(one.split("|")[5].strip().startswith(("yes", "**no**", "**not shown**")) for one in lines)
    text = page.read_text()
    assert text.index("begin: targets") < text.index("begin: beauty-masked"), "before all other tables"
