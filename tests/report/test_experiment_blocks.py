"""Tables and pictures of experiments: what was measured, and what was not run by name."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from llmgr_core.errors import InputError
from llmgr_core.evaluation import PairedBootstrap, Ranks
from llmgr_core.evaluation.near_duplicates import groups_by_closeness
from llmgr_core.evaluation.reliability import reliability
from trainer.experiments.near_duplicates import near_duplicates
from trainer.experiments.outcome import UNTRAINED, RowRanks, compare_rows
from trainer.report.definition import BucketRow, BucketsBlock, ExperimentBlock, PictureBlock, ReportDefinition
from trainer.report.experiment_table import experiment_block
from trainer.report.rendering import render
from trainer.report.result_files import ResultFiles
from trainer.report.tables import buckets_table

COMMAND = "llmgr experiment toy"


def ranks(name: str, seed: int, better: float = 0.0) -> Ranks:
    drawn = np.random.default_rng(seed).uniform(1, 40, size=400).astype(np.float32)
    return Ranks(name, np.maximum(drawn - better, 1), drawn + 1, calibration_error={"masked": 0.0123, "unmasked": 0.02})


@pytest.fixture
def files(tmp_path: Path) -> ResultFiles:
    rows = [
        RowRanks("full", "", {1: ranks("full", 1), 2: ranks("full", 2)}),
        RowRanks("better", "full", {1: ranks("better", 1, 8.0)}, also=("floor",)),
        RowRanks("floor", "full", {UNTRAINED: ranks("floor", 9)}),
    ]
    split = compare_rows(rows, np.full(400, 7), PairedBootstrap(resamples=200), "full")
    stated = np.linspace(0, 0.4, 400)
    bins = reliability(stated, np.random.default_rng(0).random(400) < stated)
    facts = [
        {
            "name": "full",
            "label": "full | ranker",
            "seeds": [1, 2],
            "cost": {"cpu_seconds": 90.0, "parameters": 1200, "request_ms": 0.25},
        },
        {"name": "better", "label": "better", "seeds": [1], "cost": {}, "budget": "12 trials, 90 epochs, 41 min"},
        {"name": "floor", "label": "floor", "seeds": [], "cost": {}},
    ]
    result = {
        "title": "Toy",
        "rows": facts,
        "not_run": [
            {"name": "x", "label": "no stage 1", "seeds": [], "why": ""},
            {"name": "full", "label": "full", "seeds": [3], "why": "a step failed"},
        ],
        "splits": {"test": split},
        "calibration": {"full": {"test": {"masked": {"error": 0.0123, "bins": bins}}}},
    }
    (tmp_path / "toy.json").write_text(json.dumps(result))
    return ResultFiles(tmp_path)


def block(**options: object) -> ExperimentBlock:
    return ExperimentBlock.model_validate({"kind": "experiment", "file": "toy.json", "command": COMMAND, **options})


def cells(table: str, label: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in line.strip("|").replace("\\|", "/").split("|")]


def test_a_row_shows_levels_its_reference_and_its_difference(files: ResultFiles) -> None:
    table = experiment_block(block(extra=("seeds", "spread", "budget")), files)
    full, better, floor = (cells(table, label) for label in ("full", "better", "floor"))
    assert full[-3:] == ["1, 2", full[-2], "-"]
    assert full[-2].startswith(".")
    assert full[5:8] == ["", "", ""], "the reference is compared with nothing"
    assert better[5] == "full"
    assert better[6].startswith("**+")
    assert better[-3:] == ["1", "-", "12 trials, 90 epochs, 41 min"]
    assert floor[-3] == "-"


def test_the_budget_of_a_row_trained_again_after_its_sweep_names_both(files: ResultFiles) -> None:
    files["toy.json"]["rows"][1]["cost"] = {"epochs": 24, "training_seconds": 312.5, "seconds": 337.1}
    table = experiment_block(block(extra=("budget",)), files)
    assert cells(table, "better")[-1] == "12 trials, 90 epochs, 41 min; then 24 epochs, 6 min"


def test_a_further_comparison_is_a_line_of_its_own(files: ResultFiles) -> None:
    lines = experiment_block(block(extra=("seeds", "cost")), files).splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("| better "))
    further = [cell.strip() for cell in lines[place + 1].split("|")[1:-1]]
    assert further[:6] == ["the same", "", "", "", "", "floor"]
    assert further[6].startswith("**+")
    assert len(further) == len(lines[0].split("|")[1:-1])
    assert [line.split("|")[1].strip() for line in lines[2:6]] == ["full \\", "better", "the same", "floor"]


def test_a_difference_from_a_further_row_is_shown_by_clicks(files: ResultFiles) -> None:
    row = BucketRow(label="over the floor", scorer="better", metric="NDCG@20", against="floor")
    lines = buckets_table(BucketsBlock(kind="buckets", file="toy.json", differences=(row,)), files).splitlines()
    assert lines[0] == "| | 5-10 (400) |"
    found = files.at("toy.json", ("splits", "test", "also", "better", "floor", "masked", "5-10", "NDCG@20", "relative"))
    assert f"({100 * found:+.1f} %)" in lines[2]
    wrong = row.model_copy(update={"scorer": "full"})
    with pytest.raises(InputError, match="there is no 'full'"):
        buckets_table(BucketsBlock(kind="buckets", file="toy.json", differences=(wrong,)), files)
    del files["toy.json"]["splits"]["test"]["also"]
    with pytest.raises(InputError, match="there is no 'better'"):
        buckets_table(BucketsBlock(kind="buckets", file="toy.json", differences=(row,)), files)


def test_what_the_run_had_trained_before_costs_minutes_by_the_clock(files: ResultFiles) -> None:
    files["toy.json"]["rows"][1]["cost"] = {"training_seconds": 150.0}
    table = experiment_block(block(extra=("cost",)), files)
    assert [cells(table, label)[-3] for label in ("full", "better", "floor")] == ["1.5", "2.5 wall", "-"]


def test_what_was_not_run_is_named_with_the_reason(files: ResultFiles) -> None:
    assert "Not run: no stage 1; full (seed 3): a step failed." in experiment_block(block(), files)


def test_cost_and_calibration_are_columns(files: ResultFiles) -> None:
    table = experiment_block(block(extra=("cost", "calibration")), files)
    assert cells(table, "full")[-4:] == ["1.5", "1,200", "0.25", ".0123"]
    assert cells(table, "floor")[-4:-1] == ["-", "-", "-"]


def test_without_a_result_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    empty = ResultFiles(tmp_path)
    assert experiment_block(block(), empty) == f"Not run yet: `{COMMAND}` makes toy.json."
    picture = PictureBlock(kind="picture", file="toy.json", draw="rows", alt="a", optional=True)
    rendering = render(ReportDefinition(block={"p": picture}), empty)
    assert rendering.pictures == {}
    assert "toy.json is not there" in rendering.blocks["p"]


@pytest.mark.parametrize(("draw", "words"), [("rows", ["better  (against full)"]), ("reliability", ["full, error 0.0123"])])
def test_pictures_of_an_experiment_name_its_rows(files: ResultFiles, tmp_path: Path, draw: str, words: list[str]) -> None:
    one = PictureBlock.model_validate({"kind": "picture", "file": "toy.json", "draw": draw, "alt": "a"})
    picture = render(ReportDefinition(block={"p": one}), files).pictures["p.svg"]
    drawn = picture.draw()
    shown = [text for node in ElementTree.fromstring(drawn).iter() if node.tag.endswith("text") for text in node.itertext()]
    assert set(words) <= set(shown)
    (tmp_path / "p.svg").write_text(drawn)
    assert picture.is_drawn_in(tmp_path / "p.svg")


def test_bins_hold_every_example_once_and_average_to_the_error() -> None:
    stated = np.random.default_rng(0).random(1000)
    happened = np.random.default_rng(1).random(1000) < stated
    bins = reliability(stated, happened)
    assert sum(one["examples"] for one in bins) == 1000
    assert [one["stated"] for one in bins] == sorted(one["stated"] for one in bins)
    from llmgr_core.evaluation import expected_calibration_error

    error = sum(one["examples"] * abs(one["stated"] - one["observed"]) for one in bins) / 1000
    assert error == pytest.approx(expected_calibration_error(stated, happened))
    assert reliability(np.zeros(0), np.zeros(0, dtype=np.bool_)) == []


def test_a_table_by_closeness_shows_levels_differences_and_shares(tmp_path: Path) -> None:
    rows = [RowRanks("plain", "", {1: ranks("plain", 1)}), RowRanks("better", "plain", {1: ranks("better", 1, 8.0)})]
    groups = groups_by_closeness(np.repeat([0.1, 0.85, 0.95], [300, 60, 40]))
    measured = near_duplicates({"test": rows}, {"test": groups}, PairedBootstrap(resamples=200))
    (tmp_path / "near.json").write_text(json.dumps({"near_duplicates": measured}))
    row = BucketRow(label="better", scorer="better", metric="NDCG@20")
    block = BucketsBlock(
        kind="buckets", file="near.json", by="near-duplicates", levels=(row,), differences=(row,), shares=(row,)
    )
    lines = buckets_table(block, ResultFiles(tmp_path)).splitlines()
    assert lines[0] == "| | all (400) | other (300) | close (60) | near-duplicate (40) |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["better", "better", "interval", "better"]
    shares = [float(cell.split("%")[0]) for cell in lines[-1].split("|")[3:6]]
    assert sum(shares) == pytest.approx(100, abs=2)
    with pytest.raises(ValueError, match="near-duplicates"):
        BucketsBlock(kind="buckets", file="near.json", shares=(row,))
