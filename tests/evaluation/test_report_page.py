"""The plots and the page of a report say what the results say."""

from __future__ import annotations

import io
import sys
from xml.etree import ElementTree

import pytest
from rich.console import Console

from llmgr_core.evaluation.page import page
from llmgr_core.evaluation.plots import plots
from llmgr_core.evaluation.tables import tables


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "relative": mean, "low": mean - 0.01, "high": mean + 0.01}


@pytest.fixture
def results() -> dict:
    values = {"HR@20": 0.1, "NDCG@20": 0.05}
    groups = {"all": values, "1-4": values, "50+": values}
    scorer = {"seeds": 1, "masked": groups, "unmasked": groups}
    difference = {name: {metric: interval(0.02) for metric in values} for name in groups}
    masked = {"masked": difference, "unmasked": difference}
    test = {
        "examples": {"all": 300, "0": 5, "1-4": 100, "5-10": 0, "11-49": 0, "50+": 195},
        "scorers": {"popularity": scorer, "id-only": scorer, "fused <text>": scorer},
        "reference": "id-only",
        "differences": {"popularity": masked, "fused <text>": masked},
    }
    return {"protocol": {"ranking": "over <all> items", "confidence": 0.95}, "splits": {"test": test}}


def words(svg: str) -> list[str]:
    return [text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text") for text in node.itertext()]


def test_plots_name_scorers_and_the_buckets_that_hold_enough_examples(results: dict) -> None:
    drawn = dict(plots(results))
    assert list(drawn) == ["test-buckets", "test-differences"]
    shown = words(drawn["test-buckets"])
    assert {"fused <text>", "id-only", "popularity", "1-4", "50+", "n=195"} <= set(shown)
    assert "n=5" not in shown
    assert "popularity" not in words(drawn["test-differences"])


def test_same_results_draw_the_same_bytes(results: dict) -> None:
    assert dict(plots(results)) == dict(plots(results))


def test_a_bucket_without_an_interval_is_left_out_of_the_differences(results: dict) -> None:
    results["splits"]["test"]["differences"]["fused <text>"]["masked"]["50+"]["HR@20"] = interval(0.0) | {"low": None}
    del results["splits"]["test"]["differences"]["fused <text>"]["masked"]["1-4"]["HR@20"]
    assert dict(plots(results))["test-differences"]


def test_page_holds_protocol_plots_and_tables_with_markup_escaped(results: dict) -> None:
    console = Console(record=True, width=150, file=io.StringIO(), force_terminal=False)
    for table in tables(results):
        console.print(table)
    whole = page(results, console, dict(plots(results)), "Run <b>")
    assert "Run &lt;b&gt;" in whole
    assert "over &lt;all&gt; items" in whole
    assert whole.count("<svg") == 2
    assert "<?xml" not in whole
    assert "0.1000" in whole
    assert "fused <text>" not in whole
    assert "matplotlib was not installed" in page(results, console, {}, "x")


def test_without_matplotlib_the_error_is_the_one_the_command_catches(results: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError):
        dict(plots(results))
