"""The fit report: what it finds in data of different kinds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from input_files import Silent, write_rows

from llmgr_core.data import Dataset
from llmgr_core.data.fit_report import table
from llmgr_core.data.prepare_dataset import prepare_dataset
from llmgr_core.data.sources import Sources
from llmgr_core.settings import load_settings


def report_of(tmp_path: Path, items: list[dict[str, Any]], sessions: list[list[str]], *overrides: str) -> dict[str, Any]:
    sources = Sources(
        write_rows(tmp_path / "sessions.jsonl", [{"items": one} for one in sessions]),
        write_rows(tmp_path / "items.jsonl", items),
    )
    artefact = prepare_dataset(sources, load_settings(None, overrides), tmp_path / "dataset", Silent(as_json=True))
    return Dataset.open(artefact).fit_report


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {one["topic"]: one["verdict"] for one in report["findings"]}


def setting(report: dict[str, Any], key: str) -> Any:
    return next((one["value"] for one in report["settings"] if one["key"] == key), None)


IDS = [f"i{number}" for number in range(30)]
CHAINS = [[IDS[(start + step) % 30] for step in range(8)] for start in range(40)]
LONG = "A sturdy wooden lamp with a linen shade for the bedside table"


def test_rich_text_and_a_tail_suit(tmp_path: Path) -> None:
    report = report_of(tmp_path, [{"item_id": one, "title": f"{LONG} {one}", "brand": "B"} for one in IDS], CHAINS)
    assert report["suits"] == "yes"
    assert verdicts(report)["item text"] == "good"
    assert report["figures"]["items_with_text"] == 1.0
    assert report["figures"]["items_with_brand"] == 1.0
    assert report["figures"]["items_with_description"] == 0.0
    assert setting(report, "include_seen") is False


def test_ids_without_text_do_not_suit(tmp_path: Path) -> None:
    report = report_of(tmp_path, [{"item_id": one} for one in IDS], CHAINS)
    assert report["suits"] == "no"
    assert verdicts(report)["item text"] == "poor"
    assert "Does LLMGR suit this data: no" in table(report)


def test_repeats_in_sessions_let_seen_items_be_recommended(tmp_path: Path) -> None:
    sessions = [[one, other, one, other, one, other] for one, other in pairwise(IDS)] * 2
    report = report_of(tmp_path, [{"item_id": one, "title": LONG} for one in IDS], sessions)
    assert setting(report, "include_seen") is True
    # training sees four clicks of each session; two of the three that follow another are on an item seen before
    assert report["figures"]["repeat_share"] == 2 / 3


def test_items_that_the_filter_leaves_out_are_pointed_at(tmp_path: Path) -> None:
    items = [{"item_id": one, "title": LONG} for one in [*IDS, *(f"new{number}" for number in range(40))]]
    report = report_of(tmp_path, items, CHAINS)
    assert setting(report, "data.items") == "all"
    kept = report_of(tmp_path, items, CHAINS, "data.items=all")
    assert setting(kept, "data.items") is None
    assert kept["figures"]["items_without_clicks"] == 40 / 70


def test_buckets_of_items_and_targets_add_up(tmp_path: Path) -> None:
    figures = report_of(tmp_path, [{"item_id": one, "title": LONG} for one in IDS], CHAINS)["figures"]
    assert abs(sum(figures["items_by_clicks"].values()) - 1) < 1e-12
    assert abs(sum(figures["targets_by_clicks"].values()) - 1) < 1e-12
    assert figures["texts_shared"] == 29 / 30
