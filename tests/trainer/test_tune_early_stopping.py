"""Early stopping of the tuning: what it logs, when it stops, which weights it keeps, and that a cut changes none of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_tuning import Shop, fall_over_after, tiny_settings, tune
from torch import nn

from llmgr_core.artefacts import Artefact
from llmgr_core.artefacts.directory import step_identity
from llmgr_core.settings import Settings
from llmgr_core.settings.tune import TuneSettings
from trainer.commands.tune import shaping_settings
from trainer.tune.checkpoint import read_checkpoint
from trainer.tune.early_stopping import EarlyStopping

# Rates at which the tiny model soon gets worse: stage 2 has 24 steps and stops before them.
PATIENT = {"patience": 2, "validation_steps": 2, "validation_examples": 40, "stage2_epochs": 2}
PATIENT |= {"learning_rate": 2e-2, "bridge_learning_rate": 2e-2}


@pytest.fixture(scope="module")
def stopped(shop: Shop, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return tune(shop, tiny_settings(encoder, **PATIENT), tmp_path_factory.mktemp("stopped") / "tuned")[0]


def lines(artefact: Artefact, stage: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Of the log: steps, and validations."""
    found = [json.loads(line) for line in (artefact.path / "log.jsonl").read_text().splitlines()]
    mine = [line for line in found if line["stage"] == stage]
    return [line for line in mine if "loss" in line], [line for line in mine if "steps" in line]


def test_the_recorded_identity_is_the_one_that_finished_artefacts_have() -> None:
    # Written down before there was patience; another one would have every team tune its model again.
    made = shaping_settings(Settings())
    assert not {"patience", "validation_steps", "validation_examples", "tensorboard"} & made["tune"].keys()
    identity = step_identity("tuned", {"dataset": "0", "backbone": "1"}, made)
    assert identity == "c7b77b8f7e1d359ae816198173a8b92be70a846594aa9ea03513fc19d6183aaf"
    unused = Settings.model_validate({"tune": {"validation_steps": 7, "validation_examples": 3}})
    assert shaping_settings(unused) == made
    patient = shaping_settings(Settings.model_validate({"tune": {"patience": 3}}))["tune"]
    assert (patient["patience"], patient["validation_steps"], patient["validation_examples"]) == (3, 50, 500)


def test_each_stage_logs_accuracy_at_every_interval(stopped: Artefact) -> None:
    for stage in (1, 2):
        steps, validations = lines(stopped, stage)
        done = [line["steps"] for line in validations]
        assert done[0] == 0
        assert done[-1] == len(steps)
        assert done[:-1] == list(range(0, 2 * len(done) - 2, 2))
        assert all(0 <= line["accuracy"] <= 1 for line in validations)
    assert all(0 <= line["ndcg20"] <= 1 for line in validations)


def test_a_stage_stops_after_so_many_validations_without_a_better_one_and_keeps_the_best(stopped: Artefact) -> None:
    metrics = stopped.manifest.metrics
    for stage, key in ((1, "accuracy"), (2, "ndcg20")):
        steps, validations = lines(stopped, stage)
        figures = [line[key] for line in validations]
        best = figures.index(max(figures))
        assert metrics[f"stage{stage}_steps"] == len(steps)
        assert metrics[f"stage{stage}_best_step"] == validations[best]["steps"]
        assert metrics[f"stage{stage}_best_validation"] == pytest.approx(figures[best], abs=1e-4)
        assert len(figures) - 1 - best <= PATIENT["patience"]
    assert metrics["stage2_steps"] < 24, "nothing was stopped: the test shows nothing"
    assert len(figures) - 1 - best == PATIENT["patience"]


def test_the_weights_that_are_kept_are_those_that_were_measured(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    # The teacher's figure at the end is on all validation examples: here stage 2 validates on the same ones.
    artefact, _ = tune(
        shop, tiny_settings(encoder, **{**PATIENT, "stage1_epochs": 0, "validation_examples": 500}), tmp_path / "t"
    )
    metrics = artefact.manifest.metrics
    assert metrics["stage2_best_step"] < metrics["stage2_steps"], "the last weights were the best: the test shows nothing"
    assert metrics["teacher_ndcg20"] == metrics["stage2_best_validation"]


@pytest.mark.parametrize("only", [1, 2])
def test_patience_that_never_runs_out_changes_no_loss(shop: Shop, encoder: Path, tmp_path: Path, only: int) -> None:
    """One stage at a time: the second starts from the best weights of the first, not from its last ones."""
    settings = {"stage2_examples": 32, f"stage{3 - only}_epochs": 0}
    plain, _ = tune(shop, tiny_settings(encoder, **settings), tmp_path / "plain")
    watched, _ = tune(shop, tiny_settings(encoder, **settings, patience=99, validation_steps=2), tmp_path / "watched")
    assert [line["loss"] for line in lines(watched, only)[0]] == [line["loss"] for line in lines(plain, only)[0]]


@pytest.mark.parametrize("cut_after", [(1, 3), (2, 6)])
def test_a_run_that_was_cut_off_stops_at_the_same_step_with_the_same_weights(
    shop: Shop, encoder: Path, stopped: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_after: tuple[int, int]
) -> None:
    fall_over_after(cut_after, monkeypatch)
    settings = tiny_settings(encoder, **PATIENT)
    with pytest.raises(KeyboardInterrupt):
        tune(shop, settings, tmp_path / "tuned")
    monkeypatch.undo()
    found = read_checkpoint(tmp_path / "tuned.partial" / "checkpoints")
    assert found is not None
    assert found[0].validation.keys() == {"best", "best_step", "waited"}
    resumed, _ = tune(shop, settings, tmp_path / "tuned")
    assert (resumed.path / "log.jsonl").read_text() == (stopped.path / "log.jsonl").read_text()
    ours, theirs = (load_file(one.file("bridge.safetensors")) for one in (resumed, stopped))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_that_no_step_made_better_are_those_it_began_with() -> None:
    weight = nn.Parameter(torch.zeros(()))
    figures = iter([0.5, 0.5, 0.2])
    stopping = EarlyStopping(
        TuneSettings(patience=2, validation_steps=10), {"w": weight}, lambda: {"accuracy": next(figures), "other": 9.0}
    )
    assert [done for done in range(26) if stopping.due(done, 25)] == [0, 10, 20, 25]
    for done in (0, 10):
        stopping.validate(done)
        weight.data += 1
        assert not stopping.stop
    kept = EarlyStopping(TuneSettings(patience=2), {"w": weight}, lambda: {"accuracy": next(figures)})
    kept.load(stopping.position(), stopping.tensors())
    kept.validate(20)
    assert kept.stop
    assert kept.restore(2) == {"stage2_best_step": 0, "stage2_best_validation": 0.5}
    assert float(weight.detach()) == 0
