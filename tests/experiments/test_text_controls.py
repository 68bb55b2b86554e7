"""Brands made up, near-duplicates and nearest sessions: from the rows of an experiment to its result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import SMALL, invoke
from tiny_models import write_tiny_encoder

from llmgr_core.artefacts import open_artefact
from llmgr_core.data import Dataset
from llmgr_core.errors import LlmgrError, SettingsError
from trainer.experiments import find_experiment
from trainer.experiments.same_clicks import require_same_clicks

ROWS = """
title = "Toy"
about = "Text with and without brands."
reference = "frozen-text"
measure = ["near-duplicates"]

[[row]]
name = "sknn"
label = "nearest sessions"
scorer = "sknn"
set = { "sknn.neighbours" = 0 }

[[row]]
name = "frozen-text"
label = "text"
variant = "frozen-text"

[[row]]
name = "anonymised"
label = "brands made up"
variant = "frozen-text"
set = { "text.brands" = "anonymised" }
"""
WORDS = ("red", "blue", "green", "small", "large", "soft")
BRANDS = ("Lotion", "Towel", "Comb", "Mirror")


def write_branded_data(directory: Path, items: int = 24, sessions: int = 90) -> Path:
    """Sessions round a circle of items in the style of their brand; the first six have no brand field."""
    directory.mkdir(parents=True)
    starts = np.random.default_rng(0).integers(0, items, size=sessions)
    catalogue = [
        {
            "item_id": f"id-{n}",
            "title": f"{BRANDS[n % 4]} {WORDS[n % 6]} {WORDS[n // 6]} cream",
            "brand": BRANDS[n % 4] if n // 6 else None,
        }
        for n in range(items)
    ]
    clicks = [
        {"session_id": str(n), "items": [f"id-{(start + k) % items}" for k in range(6)], "timestamps": list(range(n, n + 6))}
        for n, start in enumerate(starts)
    ]
    for name, rows in (("items", catalogue), ("sessions", clicks)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("branded")
    source, model = write_branded_data(root / "data"), write_tiny_encoder(root / "model")
    more = [f"data.source={source}", f"engine.model={model}", "engine.max_tokens=24", "distil.text_rank=4"]
    return [*SMALL, *(word for one in [*more, "transitions.text_neighbours=2"] for word in ("--set", one))]


@pytest.fixture(scope="module")
def run(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "run"
    for step in (["prepare"], ["pretrain"]):
        invoke(*step, "--run", str(run), "--json", *options)
    return run


def command_of(run: Path, options: list[str], directory: Path) -> list[str]:
    (directory / "toy.toml").write_text(ROWS)
    return ["experiment", str(directory / "toy.toml"), "--run", str(run), "--json", *options]


def test_a_plan_makes_texts_anew_for_the_row_with_made_up_brands_alone(run: Path, options: list[str], tmp_path: Path) -> None:
    planned = [json.loads(line) for line in invoke(*command_of(run, options, tmp_path), "--plan").splitlines()]
    assert {line["row"]: [step.split()[1] for step in line["steps"]] for line in planned} == {
        "sknn": [],
        "frozen-text": ["distil"],
        "anonymised": ["prepare", "pretrain", "embed", "distil"],
    }
    assert all('text.brands="anonymised"' in step for step in planned[2]["steps"])


def test_near_duplicates_without_untuned_vectors_are_refused_with_the_way_out(
    run: Path, options: list[str], tmp_path: Path
) -> None:
    with pytest.raises(LlmgrError, match="store") as caught:
        invoke(*command_of(run, options, tmp_path), "--collect")
    assert "llmgr embed" in str(caught.value)


@pytest.mark.slow
def test_the_rows_are_trained_and_compared_on_the_same_clicks(run: Path, options: list[str], tmp_path: Path) -> None:
    invoke("embed", "--untuned", "--run", str(run), "--json", *options)
    told = json.loads(invoke(*command_of(run, options, tmp_path), "--out", str(tmp_path / "toy.json")).splitlines()[-1])
    assert told["not_run"] == []
    result = json.loads((tmp_path / "toy.json").read_text())
    sknn, frozen, anonymised = result["rows"]
    assert sknn["chosen"]["neighbours"] == int(max(sknn["tried"], key=sknn["tried"].__getitem__))
    assert frozen["artefacts"]["1"]["inputs"]["dataset"] == result["protocol"]["dataset"]
    assert anonymised["artefacts"]["1"]["inputs"]["dataset"] != result["protocol"]["dataset"]

    made = next((run / "experiments" / "steps").glob("dataset-*")) / "dataset"
    own, other = (Dataset.open(open_artefact(path, "dataset")) for path in (run / "dataset", made))
    assert all(any(brand in (text or "") for brand in BRANDS) for text in own.texts)
    assert not any(brand in (text or "") for text in other.texts for brand in BRANDS)
    require_same_clicks(own, other, "anonymised")
    weights = [
        path / "backbone.safetensors"
        for path in (run / "backbone", *(run / "experiments" / "steps").glob("backbone-*/backbone"))
    ]
    assert len({path.read_bytes() for path in weights}) == 1, "the same clicks and the same seed"
    ranks = {path.read_bytes() for path in (run / "experiments" / "ranks").glob("ranks-*.safetensors")}
    assert len(ranks) == 3

    measured = result["near_duplicates"]["splits"]["test"]
    sizes = measured["examples"]
    assert (
        sizes["all"] == sizes["other"] + sizes["close"] + sizes["near-duplicate"] == result["splits"]["test"]["examples"]["all"]
    )
    assert measured["references"] == {"sknn": "frozen-text", "anonymised": "frozen-text"}
    assert set(measured["share_of_gain"]) == {"sknn", "anonymised"}
    whole = result["splits"]["test"]["differences"]["anonymised"]["masked"]["all"]
    assert measured["differences"]["anonymised"]["masked"]["all"] == whole


def test_rows_on_other_clicks_are_refused(run: Path, options: list[str], tmp_path: Path) -> None:
    shorter = tmp_path / "shorter"
    invoke("prepare", "--run", str(shorter), "--json", *options, "--set", "data.heldout_share=0.2")
    one, other = (Dataset.open(open_artefact(path / "dataset", "dataset")) for path in (run, shorter))
    require_same_clicks(one, one, "same")
    with pytest.raises(LlmgrError, match="row other stands on other clicks"):
        require_same_clicks(one, other, "other")


def test_tuning_refuses_made_up_brands(options: list[str], tmp_path: Path) -> None:
    anonymised = [*options, "--set", "text.brands=anonymised"]
    for step in (["prepare"], ["pretrain"]):
        invoke(*step, "--run", str(tmp_path / "run"), "--json", *anonymised)
    with pytest.raises(SettingsError, match="prompts of tuning"):
        invoke("tune", "--run", str(tmp_path / "run"), "--json", *anonymised)


def test_the_controls_have_their_rows() -> None:
    baselines = {row.name: row for row in find_experiment("baselines")[1].rows}
    assert (baselines["sknn"].scorer, baselines["sknn"].set) == ("sknn", {})
    assert baselines["sknn-chosen"].set == {"sknn.neighbours": 0}
    near = find_experiment("near-duplicates")[1]
    assert near.measure == ("near-duplicates",)
    assert [row.variant for row in near.rows] == ["id-only", "frozen-text", "fused"]
    made_up = find_experiment("contamination")[1].rows[-1]
    assert (made_up.variant, made_up.set["text.brands"]) == ("frozen-text", "anonymised")
    assert find_experiment("contamination")[1].reference_of(made_up) == "frozen-text"
