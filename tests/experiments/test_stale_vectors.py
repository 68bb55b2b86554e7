"""Stale item vectors: the trained ranker stays, some items' vectors do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import SMALL, invoke, write_data
from tiny_models import write_tiny_encoder

from llmgr_core.artefacts import open_artefact
from llmgr_core.data import Dataset
from trainer.distil.inputs import encoder_fingerprint, read_text_vectors
from trainer.distil.student import TextVectors
from trainer.experiments import Experiment
from trainer.experiments.definition import Stale
from trainer.experiments.links import Link
from trainer.experiments.stale_vectors import StaleVectors

TINY = ["tune.lora_rank=2", "tune.text_rows=4", "tune.candidates=4", "tune.heldout_items=2", "tune.batch_size=8"]
TINY += ["tune.stage2_examples=32", "engine.max_tokens=24", "distil.teacher=false", "distil.text_rank=4"]
TINY += ["transitions.text_neighbours=2"]

WORDS = ("red", "blue", "lipstick", "cream", "soap", "towel")

STALENESS = """
title = "Toy"
about = "One ranker, some of its vectors older."
reference = "fresh"

[[row]]
name = "fresh"
label = "fresh"

[[row]]
name = "untuned-50"
label = "half untuned"
stale = { share = 0.5, vectors = "untuned" }

[[row]]
name = "untuned-100"
label = "all untuned"
stale = { share = 1.0, vectors = "untuned" }

[[row]]
name = "earlier-100"
label = "all before stage 2"
stale = { share = 1.0, vectors = "earlier", set = { "tune.stage2_epochs" = 0 } }

[[row]]
name = "none-100"
label = "none"
stale = { share = 1.0, vectors = "none" }
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    model = write_tiny_encoder(tmp_path_factory.mktemp("model") / "tiny")
    return [*SMALL, *(word for one in [*TINY, f"engine.model={model}"] for word in ("--set", one))]


@pytest.fixture(scope="module")
def tuned_run(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tuned")
    data, run = write_data(root / "data", items=30, words=WORDS), root / "run"
    invoke("prepare", "--run", str(run), "--json", "--set", f"data.source={data}")
    for step in (["pretrain"], ["tune"], ["embed"], ["embed", "--untuned"]):
        invoke(*step, "--run", str(run), "--json", *options)
    return run


def command_of(run: Path, options: list[str], directory: Path) -> list[str]:
    toy = directory / "toy.toml"
    toy.write_text(STALENESS)
    return ["experiment", str(toy), "--run", str(run), "--json", *options]


def test_a_plan_names_what_the_earlier_model_needs(tuned_run: Path, options: list[str], tmp_path: Path) -> None:
    planned = [json.loads(line) for line in invoke(*command_of(tuned_run, options, tmp_path), "--plan").splitlines()]
    assert {line["row"]: [step.split()[1] for step in line["steps"]] for line in planned} == {
        "fresh": ["distil"],
        "untuned-50": [],
        "untuned-100": [],
        "earlier-100": ["tune", "embed"],
        "none-100": [],
    }


@pytest.mark.slow
def test_one_ranker_is_ranked_with_each_kind_of_stale_vectors(tuned_run: Path, options: list[str], tmp_path: Path) -> None:
    command = command_of(tuned_run, options, tmp_path)
    told = json.loads(invoke(*command, "--out", str(tmp_path / "toy.json")).splitlines()[-1])
    assert told["not_run"] == []
    result = json.loads((tmp_path / "toy.json").read_text())
    digests = {row["artefacts"]["1"]["digest"] for row in result["rows"]}
    assert len(digests) == 1
    assert result["rows"][1]["stale"] == {"share": 0.5, "vectors": "untuned", "set": {}}
    kept = sorted((tuned_run / "experiments" / "ranks").glob("ranks-*.safetensors"))
    assert len(kept) == 5
    ranks = {path.read_bytes() for path in kept}
    assert len(ranks) == 5, "every kind of vectors ranks otherwise"
    again = json.loads(invoke(*command, "--collect").splitlines()[-1])
    assert again["not_run"] == []
    assert sorted((tuned_run / "experiments" / "ranks").glob("ranks-*.safetensors")) == kept


def test_a_larger_share_holds_the_smaller_one(tuned_run: Path, options: list[str]) -> None:
    from llmgr_core.settings import load_settings

    settings = load_settings(None, tuple(word for word in options if word != "--set"))
    dataset = Dataset.open(open_artefact(tuned_run / "dataset", "dataset"))
    tuned = open_artefact(tuned_run / "tuned", "tuned")
    store = Link("store", tuned_run / "store", "", True)
    own = read_text_vectors(tuned_run / "store", dataset, encoder_fingerprint(settings, dataset, tuned))
    untuned = read_text_vectors(tuned_run / "store", dataset, encoder_fingerprint(settings, dataset, None))

    def changed(share: float) -> TextVectors:
        return StaleVectors(Stale(share=share, vectors="untuned"), settings, store, None).put_into(own, dataset)

    some, more = ((changed(share).vectors != own.vectors).any(axis=1) for share in (0.25, 0.5))
    assert (some.sum(), more.sum()) == (8, 15)
    assert not (some & ~more).any()
    np.testing.assert_array_equal(changed(0.5).vectors[more], untuned.vectors[more])
    np.testing.assert_array_equal(changed(1.0).vectors, untuned.vectors)
    missing = StaleVectors(Stale(share=0.25, vectors="none"), settings, None, None).put_into(own, dataset)
    assert (~missing.present == some).all()


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"stale": {"share": 0.5, "vectors": "earlier"}}, "go with vectors"),
        ({"stale": {"share": 0.5, "vectors": "none", "set": {"seed": 2}}}, "go with vectors"),
        ({"stale": {"share": 0.0, "vectors": "none"}}, "greater than 0"),
        ({"variant": "id-only", "stale": {"share": 0.5, "vectors": "none"}}, "no ranker with text"),
    ],
)
def test_staleness_that_means_nothing_is_refused(row: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Experiment.model_validate({"title": "t", "about": "a", "row": [{"name": "a", "label": "A", **row}]})
