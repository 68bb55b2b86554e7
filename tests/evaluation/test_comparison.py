"""Scorers side by side: what the results hold, on disk and in the tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from llmgr_core.errors import ArtefactError
from llmgr_core.evaluation import METRICS, FloorScorer, PairedBootstrap, PopularityScorer, Ranks, evaluate, protocol, summarise
from llmgr_core.evaluation.comparison import choose_reference, compare
from llmgr_core.evaluation.results import SplitRanks, read_results, write_ranks, write_results
from llmgr_core.evaluation.tables import tables
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.transitions import TransitionGraph, TransitionSettings

COUNTS = np.array([0, 2, 2, 7, 7, 7, 30, 80])


def ranks(name: str, values: list[float]) -> Ranks:
    masked = np.array(values, dtype=np.float32)
    return Ranks(name, masked, masked + 1)


def sample() -> dict[str, list[Ranks]]:
    return {
        "floor": [ranks("floor", [30, 30, 1, 2, 30, 30, 4, 1])],
        "fused": [ranks("fused", [30, 2, 1, 1, 3, 30, 4, 1]), ranks("fused", [30, 30, 1, 1, 3, 30, 4, 2])],
    }


def test_metrics_are_means_over_seeds_and_differences_are_paired():
    found = compare(sample(), COUNTS, "floor", PairedBootstrap(200))
    assert found["examples"] == {"all": 8, "0": 1, "1-4": 2, "5-10": 3, "11-49": 1, "50+": 1}
    fused = found["scorers"]["fused"]
    assert fused["seeds"] == 2
    assert fused["masked"]["1-4"]["HR@20"] == pytest.approx((1.0 + 0.5) / 2)
    difference = found["differences"]["fused"]["masked"]["all"]["HR@20"]
    expected = fused["masked"]["all"]["HR@20"] - found["scorers"]["floor"]["masked"]["all"]["HR@20"]
    assert difference["mean"] == pytest.approx(expected)
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert found["differences"]["fused"]["masked"]["0"]["HR@20"]["relative"] is None, "nothing can be relative to zero"
    assert "floor" not in found["differences"]


def test_one_model_under_many_seeds_is_named_as_one(tmp_path):
    seeds = sample()
    found = compare(
        {"floor": seeds["floor"] * 3, "fused": seeds["fused"], "lone": seeds["floor"]}, COUNTS, None, PairedBootstrap(100)
    )
    assert {name: facts.get("different") for name, facts in found["scorers"].items()} == {
        "floor": 1,
        "fused": None,
        "lone": None,
    }
    console = Console(width=200, record=True, file=(tmp_path / "log").open("w"))
    for table in tables({"protocol": {}, "splits": {"test": found}}):
        console.print(table)
    assert "floor (1 for 3 seeds)" in console.export_text()


def test_buckets_without_examples_are_left_out():
    found = compare(sample(), np.full(8, 60), "floor", PairedBootstrap(100))
    assert set(found["scorers"]["fused"]["masked"]) == {"all", "50+"}


def test_scorers_of_other_examples_are_refused():
    with pytest.raises(ValueError, match="fused ranked"):
        compare({"fused": [ranks("fused", [1.0])]}, COUNTS, None, PairedBootstrap(100))


def test_the_reference_is_the_id_only_ranker_where_there_is_one():
    assert choose_reference("auto", ["floor", "backbone", "id-only"]) == "id-only"
    assert choose_reference("auto", ["floor", "backbone"]) == "backbone"
    assert choose_reference("floor", ["floor", "backbone"]) == "floor"
    assert choose_reference("teacher", ["floor"]) is None


def test_results_and_ranks_survive_the_disk_and_make_tables(tmp_path):
    found = compare(sample(), COUNTS, "floor", PairedBootstrap(100))
    results = {"protocol": protocol({"split": "leave-one-out"}, seed=1, confidence=0.95), "splits": {"test": found}}
    single = {name: seeds[0] for name, seeds in sample().items()}
    write_ranks(tmp_path, {"test": SplitRanks(COUNTS, single)})
    write_results(tmp_path / "results.json", results)
    again, splits = read_results(tmp_path)
    assert again == json.loads(json.dumps(results))
    np.testing.assert_array_equal(splits["test"].ranks["fused"].unmasked, single["fused"].unmasked)
    np.testing.assert_array_equal(splits["test"].train_counts, COUNTS)
    console = Console(width=200, record=True, quiet=False, file=(tmp_path / "log").open("w"))
    for table in tables(again):
        console.print(table)
    text = console.export_text()
    for word in (*METRICS, "5-10", "seen items not masked", "difference from floor", "8 examples"):
        assert word in text


def test_the_protocol_names_what_a_number_depends_on():
    facts = protocol({"split": "time"}, seed=7, resamples=100)
    assert facts["data"] == {"split": "time"}
    assert facts["seed"] == 7
    for key in ("ranking", "masking", "ties", "command", "commit", "machine", "resamples"):
        assert key in facts
    assert "/" not in str(facts["machine"].get("processor", "")) or "w/" in facts["machine"]["processor"]


def test_missing_results_name_the_way_out(tmp_path):
    with pytest.raises(ArtefactError, match="llmgr evaluate"):
        read_results(tmp_path)


def test_the_floor_beats_popularity_where_sessions_follow_paths():
    generator = np.random.default_rng(0)
    walks = []
    for _ in range(300):
        start = int(generator.integers(0, 60))
        steps = generator.choice([1, 1, 1, 7], size=6)
        walks.append(((start + np.cumsum(steps)) % 60).tolist())
    train, test = Sessions.from_lists(walks[:250]), Examples.last_click(Sessions.from_lists(walks[250:]))
    graph = TransitionGraph.build(train, 60, TransitionSettings())
    floor = summarise(evaluate(FloorScorer(graph), test, batch_size=16).masked)
    popularity = summarise(evaluate(PopularityScorer(train.click_counts(60)), test, batch_size=7).masked)
    assert floor["NDCG@10"] > 2 * popularity["NDCG@10"]


def test_batch_size_does_not_change_ranks():
    sessions = Sessions.from_lists([[0, 1, 2, 3], [2, 3, 0], [1, 1, 2]])
    graph = TransitionGraph.build(sessions, 4, TransitionSettings())
    examples = Examples.every_prefix(sessions)
    one, many = (evaluate(FloorScorer(graph), examples, batch_size=size) for size in (1, 100))
    np.testing.assert_array_equal(one.masked, many.masked)
    np.testing.assert_array_equal(one.unmasked, many.unmasked)
