"""`llmgr evaluate` on data with held-out items: both rows of each comparison, in the file and in the tables."""

from __future__ import annotations

import json

import pytest
from text_run import command, make_text_run

from llmgr_core.evaluation.comparison import NEAREST_TEXT
from llmgr_core.evaluation.new_items import AMONG_CLICKED


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("new-items")
    run = make_text_run(root)
    model = f"engine.model={root / 'model'}"
    for variant in ("frozen-text", "id-only"):
        command(run, "distil", model, more=("--variant", variant))
    told = command(run, "evaluate", model, "evaluate.resamples=100")
    return json.loads((run / "evaluation" / "results.json").read_text()), (run / "evaluation" / "tables.txt").read_text(), told


def test_new_items_stand_beside_the_nearest_text(evaluated):
    results, shown, told = evaluated
    heldout = results["splits"]["heldout"]
    assert heldout["reference"] == NEAREST_TEXT
    assert NEAREST_TEXT not in results["splits"]["test"]["scorers"]
    one = heldout["new_items"]["frozen-text"]["masked"]["HR@10"]
    assert one["value"] == heldout["scorers"]["frozen-text"]["masked"]["all"]["HR@10"] > 0
    assert one["nearest"] == heldout["scorers"][NEAREST_TEXT]["masked"]["all"]["HR@10"]
    assert "validation_HR@10" in told
    assert "as a multiple of the nearest text" in shown


def test_clicked_targets_are_ranked_with_and_without_new_items(evaluated):
    results, shown, _ = evaluated
    test = results["splits"]["test"]
    one = test["warm"]["frozen-text"]["masked"]["NDCG@20"]
    assert one["without"] == test["scorers"]["frozen-text" + AMONG_CLICKED]["masked"]["all"]["NDCG@20"] > 0
    assert one["value"] == test["scorers"]["frozen-text"]["masked"]["all"]["NDCG@20"] <= one["without"]
    assert "new items in the table over clicked items alone" in shown
    assert list(test["warm"]) == ["frozen-text"]
