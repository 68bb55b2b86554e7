"""Rows of items that training never saw: the nearest text, and what their presence costs clicked items."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from llmgr_core.evaluation import PairedBootstrap, Ranks
from llmgr_core.evaluation.comparison import NEAREST_TEXT, choose_reference, compare
from llmgr_core.evaluation.new_items import AMONG_CLICKED, AmongClicked, NearestTextScorer, found_new_items, warm_change
from llmgr_core.evaluation.retention import retention
from llmgr_core.evaluation.tables import tables
from llmgr_core.sessions import Examples, Sessions


def hits(name: str, count: int, of: int = 200) -> list[Ranks]:
    ranks = np.where(np.arange(of) < count, 1.0, 1000.0).astype(np.float32)
    return [Ranks(name, ranks, ranks)]


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_nearest_text_is_the_sum_of_cosines_to_the_clicks(decay):
    rng = np.random.default_rng(0)
    vectors, present = rng.normal(size=(9, 4)), np.arange(9) != 6
    sessions = Sessions.from_lists([[0, 3, 3, 1], [5, 6, 2], [4, 7]])
    found = NearestTextScorer(vectors, present, decay, clicks=2).scores(Examples.last_click(sessions)).numpy()
    for row, prefix in zip(found, ([3, 3], [5, 6], [4]), strict=True):
        for v in range(9):
            cosines = [
                decay ** (len(prefix) - 1 - k)
                * vectors[u]
                @ vectors[v]
                / np.linalg.norm(vectors[u])
                / np.linalg.norm(vectors[v])
                for k, u in enumerate(prefix)
                if u != 6
            ]
            assert row[v] == (-np.inf if v == 6 else pytest.approx(sum(cosines), abs=1e-5))


def test_clicked_items_alone_is_the_ranker_without_the_others():
    class Level:
        name = "frozen-text"

        def scores(self, examples: Examples) -> torch.Tensor:
            return torch.ones(len(examples), 4)

    scorer = AmongClicked(Level(), np.array([3, 0, 1, 0]))
    assert scorer.name == "frozen-text" + AMONG_CLICKED
    scores = scorer.scores(Examples.last_click(Sessions.from_lists([[0, 2], [2, 0]])))
    assert torch.isinf(scores).nonzero().tolist() == [[0, 1], [0, 3], [1, 1], [1, 3]]


def test_ratios_are_those_worked_out_by_hand_and_stand_in_the_tables():
    bootstrap = PairedBootstrap(400)
    new = {NEAREST_TEXT: hits(NEAREST_TEXT, 40), "frozen-text": hits("frozen-text", 60), "id-only": hits("id-only", 0)}
    found = found_new_items(new, bootstrap)
    one = found["frozen-text"]["masked"]["HR@10"]
    assert (one["value"], one["nearest"], one["ratio"]) == (pytest.approx(0.3), pytest.approx(0.2), pytest.approx(1.5))
    assert 1.2 < one["low"] < 1.5 < one["high"] < 2.0
    assert found["id-only"]["unmasked"]["HR@10"]["ratio"] == 0.0
    warm = {
        "frozen-text": hits("frozen-text", 99),
        "frozen-text" + AMONG_CLICKED: hits("", 100),
        "id-only": hits("id-only", 50),
    }
    clicked = np.ones(200, dtype=np.int64)
    change = warm_change(warm, clicked, bootstrap)
    assert list(change) == ["frozen-text"]
    assert change["frozen-text"]["masked"]["NDCG@20"]["ratio"] == pytest.approx(0.99)
    assert found_new_items(warm, bootstrap) is None
    assert warm_change(new, clicked, bootstrap) is None
    counts = np.zeros(200, dtype=np.int64)
    split = {**compare(new, counts, choose_reference("auto", list(new)), bootstrap), "new_items": found, "warm": change}
    assert split["reference"] == NEAREST_TEXT
    shown = Console(record=True, width=160, file=io.StringIO())
    for table in tables({"protocol": {}, "splits": {"heldout": split}}):
        shown.print(table)
    text = shown.export_text()
    assert "1.500" in text
    assert "0.990" in text


def test_a_ratio_to_nothing_is_left_out():
    found = found_new_items({NEAREST_TEXT: hits(NEAREST_TEXT, 0), "fused": hits("fused", 9)}, PairedBootstrap(50))
    assert found["fused"]["masked"]["HR@5"]["ratio"] is None
    assert found["fused"]["masked"]["HR@5"]["high"] is None


def test_rows_of_new_items_retain_nothing():
    ranks = {name: hits(name, 20 + 20 * number) for number, name in enumerate(("backbone", "fused", "teacher", NEAREST_TEXT))}
    ranks["fused" + AMONG_CLICKED] = hits("", 30)
    assert list(retention(ranks, np.full(200, 3), PairedBootstrap(50))["students"]) == ["fused"]


def test_what_new_items_cost_is_counted_on_clicked_targets_alone():
    """A target that nobody clicked is only in the whole table: finding it there is no gain of clicked ones."""
    found, missed = np.float32(1.0), np.float32(99.0)
    whole, alone = np.array([found, missed, found]), np.array([missed, found, found])
    ranks = {"fused": [Ranks("fused", whole, whole)], "fused" + AMONG_CLICKED: [Ranks("", alone, alone)]}
    change = warm_change(ranks, np.array([0, 3, 7]), PairedBootstrap(100))
    assert change is not None
    assert change["fused"]["masked"]["HR@10"]["ratio"] == pytest.approx(0.5)
    assert warm_change(ranks, np.zeros(3, dtype=np.int64), PairedBootstrap(100)) is None
