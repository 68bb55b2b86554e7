"""Ablations of the tuning: both stages at once, and a language model that does not learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_tuning import Shop, losses, tiny_settings, tune

from llmgr_core.artefacts import Artefact
from llmgr_core.engine import SemanticEngine
from trainer.commands.tune import shaping_settings
from trainer.tune import two_stages


@pytest.fixture(scope="module")
def in_order(shop: Shop, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return tune(shop, tiny_settings(encoder, stage2_examples=48), tmp_path_factory.mktemp("in-order") / "tuned")[0]


def test_in_order_is_the_step_it_was_before_there_was_a_choice(encoder: Path) -> None:
    assert "order" not in shaping_settings(tiny_settings(encoder))["tune"]
    assert shaping_settings(tiny_settings(encoder, order="joint"))["tune"]["order"] == "joint"


def test_joint_stages_take_every_step_of_both_and_go_on_where_they_were_cut_off(
    shop: Shop, encoder: Path, in_order: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(encoder, order="joint", stage2_examples=48)
    whole, _ = tune(shop, settings, tmp_path / "whole")
    assert len(losses(whole.path)) == len(losses(in_order.path))
    assert set(whole.manifest.metrics) >= {"stage1_accuracy_after", "teacher_ndcg20", "backbone_ndcg20"}
    write = two_stages.write_checkpoint

    def write_and_fall_over(directory: Path, position: two_stages.Position, tensors: dict[str, torch.Tensor]) -> None:
        write(directory, position, tensors)
        if position.step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(two_stages, "write_checkpoint", write_and_fall_over)
    with pytest.raises(KeyboardInterrupt):
        tune(shop, settings, tmp_path / "cut")
    monkeypatch.undo()
    resumed, _ = tune(shop, settings, tmp_path / "cut")
    assert losses(resumed.path) == pytest.approx(losses(whole.path), abs=1e-4)


def test_rank_0_leaves_the_language_model_as_it_came_and_trains_the_bridge(
    shop: Shop, encoder: Path, in_order: Artefact, tmp_path: Path
) -> None:
    settings = tiny_settings(encoder, lora_rank=0, stage2_examples=48)
    (none, _), four = tune(shop, settings, tmp_path / "none"), in_order
    texts = ["small red lipstick", "large blue oil"]
    untuned = SemanticEngine.load(settings.engine).embed_texts(texts)
    assert SemanticEngine.from_tuned(none, settings.engine).embed_texts(texts) == pytest.approx(untuned, abs=1e-5)
    assert SemanticEngine.from_tuned(four, settings.engine).embed_texts(texts) != pytest.approx(untuned, abs=1e-3)
    ours, theirs = (load_file(one.file("bridge.safetensors")) for one in (none, four))
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    assert none.manifest.details["trainable_parameters"] < four.manifest.details["trainable_parameters"]
