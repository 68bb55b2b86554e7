"""Controls of the tuning: each takes away what it says, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_tuning import Quiet, Shop, tiny_settings, tune

from llmgr_core.artefacts import Artefact
from llmgr_core.command_line.main import llmgr
from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.engine.prompt_batches import MainBatch
from llmgr_core.errors import InputError, SettingsError
from llmgr_core.sessions import Examples
from llmgr_core.settings import Settings
from trainer.commands.tune import shaping_settings
from trainer.tune import two_stages
from trainer.tune.candidates import random_candidates
from trainer.tune.shuffled_texts import items_of_other_texts
from trainer.tune.teacher import Teacher
from trainer.tune.two_stages import TwoStageTuning

FEW = {"stage1_examples": 24, "stage2_examples": 32, "checkpoint_steps": 2}
CHOICES = {"order": "swapped", "projection": "mlp", "stage1_texts": "shuffled", "stage2_candidates": 5}


def untrained(shop: Shop, settings: Settings, path: Path) -> TwoStageTuning:
    """A model whose bridge is where tuning starts."""
    for folder in (path, path / "checkpoints"):
        folder.mkdir(parents=True)
    dataset, backbone = Dataset.open(shop.dataset), Backbone.load(shop.backbone)
    tuning = TwoStageTuning(dataset, backbone, settings, directory=path, checkpoints=path / "checkpoints", reporter=Quiet())
    untuned = tuning._vectors("untuned")
    tuning._start_bridge(untuned)
    tuning._start_text_rows(untuned)
    return tuning


def weights(artefact: Artefact) -> dict[str, torch.Tensor]:
    return load_file(artefact.file("bridge.safetensors"))


def log_of(artefact: Artefact) -> list[dict]:
    return [json.loads(line) for line in (artefact.path / "log.jsonl").read_text().splitlines()]


def some_prefixes(shop: Shop, count: int = 9) -> Examples:
    return Dataset.open(shop.dataset).validation.evenly_spread(count)


@pytest.mark.parametrize(("key", "value"), CHOICES.items())
def test_a_model_tuned_as_ever_is_the_step_it_was_before_there_was_a_choice(encoder: Path, key: str, value: object) -> None:
    assert key not in shaping_settings(tiny_settings(encoder))["tune"]
    assert shaping_settings(tiny_settings(encoder, **{key: value}))["tune"][key] == value


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=24), st.integers(0, 99))
def test_shuffled_texts_are_the_same_texts_on_items_of_another_text(kinds: list[int], seed: int) -> None:
    texts = [f"text {kind}" for kind in kinds]
    items = np.random.default_rng(seed).permutation(len(texts))
    if 2 * max(texts.count(text) for text in texts) > len(texts):
        with pytest.raises(InputError, match="have the same text"):
            items_of_other_texts(items, texts, np.random.default_rng(seed))
        return
    shown = items_of_other_texts(items, texts, np.random.default_rng(seed))
    assert sorted(shown.tolist()) == sorted(items.tolist())
    assert all(texts[one] != texts[other] for one, other in zip(items, shown, strict=True))


def test_stage_1_with_shuffled_texts_asks_for_the_same_items_by_texts_of_others(
    shop: Shop, encoder: Path, tmp_path: Path
) -> None:
    asked, shown = {}, {}
    for kind in ("own", "shuffled"):
        tuning = untrained(shop, tiny_settings(encoder, stage1_texts=kind), tmp_path / kind)
        learn = tuning.examples.items_to_learn(np.load(tmp_path / kind / "checkpoints" / "untuned-vectors.npy"))
        steps, build = learn.work.steps, learn.work.build
        words: dict[int, tuple[int, ...]] = {}
        for chosen in steps:
            batch = build(chosen, np.random.default_rng(0))
            answers = batch.candidates.gather(1, batch.answers[:, None])[:, 0].tolist()
            rows = [tuple(row[mask].tolist()) for row, mask in zip(batch.texts.entries, batch.texts.mask, strict=True)]
            words |= dict(zip(answers, rows, strict=True))
        asked[kind], shown[kind] = set(words), words
        assert not asked[kind] & set(learn.heldout.tolist())
    assert asked["own"] == asked["shuffled"]
    assert sorted(shown["own"].values()) == sorted(shown["shuffled"].values())
    assert not [item for item in asked["own"] if shown["own"][item] == shown["shuffled"][item]]


@pytest.mark.parametrize("count", [1, 5, 18, 19, 40])
def test_random_candidates_are_the_target_and_different_other_items(count: int) -> None:
    targets = np.array([0, 7, 19, 19])
    drawn = random_candidates(targets, 20, count, np.random.default_rng(0))
    assert drawn.shape == (4, 1 + min(count, 19))
    assert np.array_equal(drawn[:, 0], targets)
    assert all(len(set(row)) == len(row) for row in drawn.tolist())
    assert drawn.min() >= 0
    assert drawn.max() <= 19


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_over_all_items_as_candidates_the_loss_is_that_over_the_catalogue(
    shop: Shop, encoder: Path, tmp_path: Path, projection: str
) -> None:
    tuning = untrained(shop, tiny_settings(encoder, projection=projection, lora_dropout=0.0), tmp_path / "tuning")
    model, examples = tuning.model.eval(), some_prefixes(shop)
    learned = {name: one for name, one in model.named_parameters() if one.requires_grad}

    def loss_and_gradients(batch: MainBatch) -> tuple[list[float], dict[str, torch.Tensor]]:
        model.zero_grad(set_to_none=True)
        found = model(batch)
        found.loss.backward()
        gradients = {name: one.grad.clone() for name, one in learned.items() if one.grad is not None}
        return [float(found.prompt_loss.detach()), float(found.item_loss.detach())], gradients

    batch = tuning.batches.main(examples, with_last_texts=True)
    full, wanted = loss_and_gradients(batch)
    rng = np.random.default_rng(0)
    items = Dataset.open(shop.dataset).num_items
    targets = examples.targets.astype(np.int64)
    everything = torch.from_numpy(random_candidates(targets, items, items, rng))
    over_all, found = loss_and_gradients(dataclasses.replace(batch, candidates=everything))
    assert over_all == pytest.approx(full, rel=1e-5)
    assert found.keys() == wanted.keys()
    for name in found:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=1e-5, msg=name)
    few = torch.from_numpy(random_candidates(targets, items, 4, rng))
    over_few, _ = loss_and_gradients(dataclasses.replace(batch, candidates=few))
    assert all(one < other for one, other in zip(over_few, full, strict=True))


def test_stage_2_over_candidates_draws_them_anew_for_each_step(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    tuning = untrained(shop, tiny_settings(encoder, stage2_candidates=4), tmp_path / "tuning")
    work = tuning.examples.prefixes_to_learn()
    steps, build = work.steps, work.build
    first, again, other = (build(steps[0], np.random.default_rng(seed)).candidates for seed in (0, 0, 1))
    assert first.shape == (len(steps[0]), 5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first[:, 0], build(steps[0], np.random.default_rng(0)).targets)


def test_a_frozen_projection_is_bitwise_its_random_start_and_all_else_learns(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    settings = tiny_settings(encoder, projection="random-frozen", **FEW)
    start = untrained(shop, settings, tmp_path / "start").model.bridge.state_dict()
    artefact, tuning = tune(shop, settings, tmp_path / "tuned")
    end = weights(artefact)
    assert torch.equal(end["bridge.projection"], start["projection"])
    for name in ("head.outer.weight", "readout.query", "text_head.weight", "log_prompt_scale", "graph_gate"):
        assert not torch.equal(end[f"bridge.{name}"], start[name]), name
    fitted = untrained(shop, tiny_settings(encoder, **FEW), tmp_path / "fitted").model.bridge.projection.detach()
    aligned = torch.nn.functional.cosine_similarity(fitted.flatten(), start["projection"].flatten(), dim=0)
    assert abs(float(aligned)) < 0.3
    loaded = Teacher.load(artefact, Dataset.open(shop.dataset), shop.backbone)
    assert torch.equal(loaded.model.bridge.projection, start["projection"])
    assert tuning.model.settings.projection == "random-frozen"


def test_a_linear_projection_learns(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    settings = tiny_settings(encoder, **FEW)
    start = untrained(shop, settings, tmp_path / "start").model.bridge.projection.detach().clone()
    assert not torch.equal(weights(tune(shop, settings, tmp_path / "tuned")[0])["bridge.projection"], start)


@pytest.mark.parametrize("graph_residual", [True, False])
def test_an_mlp_projection_starts_as_the_linear_one(shop: Shop, encoder: Path, tmp_path: Path, graph_residual: bool) -> None:
    examples, scores, candidates = some_prefixes(shop), {}, {}
    for kind in ("linear", "mlp"):
        settings = tiny_settings(encoder, projection=kind, graph_residual=graph_residual)
        tuning = untrained(shop, settings, tmp_path / kind)
        model = tuning.model.eval()
        with torch.inference_mode():
            scores[kind] = model.scores(tuning.batches.main(examples, with_last_texts=False))
            items = tuning.examples.items[:4]
            batch = tuning.batches.auxiliary(items, np.tile(items, (4, 1)))
            candidates[kind] = model.candidate_logits(batch)
    torch.testing.assert_close(scores["mlp"], scores["linear"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(candidates["mlp"], candidates["linear"], rtol=1e-4, atol=1e-4)


def test_an_mlp_projection_learns_all_its_layers_and_is_loaded_as_it_was_saved(
    shop: Shop, encoder: Path, tmp_path: Path
) -> None:
    settings = tiny_settings(encoder, projection="mlp", **FEW)
    start = untrained(shop, settings, tmp_path / "start").model.bridge.state_dict()
    artefact, tuning = tune(shop, settings, tmp_path / "tuned")
    end = weights(artefact)
    for name in ("projection", "first_layers.inner.weight", "first_layers.outer.weight"):
        assert not torch.equal(end[f"bridge.{name}"], start[name]), name
    examples = some_prefixes(shop)
    ours = Teacher(tuning.model.eval(), tuning.batches, 2048).scores(examples)
    theirs = Teacher.load(artefact, Dataset.open(shop.dataset), shop.backbone).scores(examples)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    for name in ("dataset", "backbone"):
        (tmp_path / name).symlink_to(shop.run / name)
    pull = ["--set", "distil.row_pull=0.1", "--set", "distil.start=backbone"]
    refused = CliRunner().invoke(llmgr, ["distil", "--run", str(tmp_path), *pull], standalone_mode=False)
    assert isinstance(refused.exception, SettingsError)
    assert "the W_p of" in str(refused.exception)


def test_in_swapped_order_stage_2_comes_first_and_a_run_goes_on_in_either_stage(
    shop: Shop, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(encoder, order="swapped", **FEW)
    whole, tuning = tune(shop, settings, tmp_path / "whole")
    stages = [line["stage"] for line in log_of(whole)]
    assert stages == sorted(stages, reverse=True)
    assert (stages.count(2), stages.count(1)) == (4, 3)
    assert set(whole.manifest.metrics) >= {"stage1_accuracy_before", "stage1_accuracy_after", "teacher_ndcg20", "text_gate"}
    examples = some_prefixes(shop)
    theirs = Teacher.load(whole, Dataset.open(shop.dataset), shop.backbone).scores(examples)
    torch.testing.assert_close(
        theirs, Teacher(tuning.model.eval(), tuning.batches, 2048).scores(examples), rtol=1e-4, atol=1e-4
    )

    write = two_stages.write_checkpoint
    left = [(2, 2), (1, 0), (1, 2)]

    def write_and_fall_over(directory: Path, position: two_stages.Position, tensors: dict[str, torch.Tensor]) -> None:
        write(directory, position, tensors)
        if left and (position.stage, position.step) == left[0]:
            del left[0]
            raise KeyboardInterrupt

    monkeypatch.setattr(two_stages, "write_checkpoint", write_and_fall_over)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            tune(shop, settings, tmp_path / "cut")
    means = {stage: np.load(tmp_path / "cut.partial" / "checkpoints" / f"stage-{stage}-prompt-mean.npy") for stage in (1, 2)}
    assert not np.allclose(means[1], means[2])
    assert np.array_equal(weights(whole)["bridge.prompt_mean"], means[2]), "what is asked of the model afterwards is stage 2's"
    again, _ = tune(shop, settings, tmp_path / "cut")
    assert again.manifest.files == whole.manifest.files
