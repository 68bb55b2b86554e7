"""Two-stage tuning: what learns, what is kept, and that a run that was cut off goes on as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import write_tiny_causal, write_tiny_encoder
from tiny_tuning import Quiet, Shop, fall_over_after, tiny_settings, tune, write_shop

from llmgr_core.artefacts import Artefact, open_artefact
from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.engine import SemanticEngine
from llmgr_core.engine.tuned_model import load_tuned
from llmgr_core.errors import ArtefactError, InputError
from llmgr_core.evaluation import evaluate
from trainer.tune.teacher import Teacher
from trainer.tune.two_stages import TwoStageTuning


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_causal(tmp_path_factory.mktemp("causal") / "model")


@pytest.fixture(scope="module")
def tuned(shop: Shop, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artefact, TwoStageTuning]:
    return tune(shop, tiny_settings(encoder, stage1_epochs=6, stage2_epochs=3), tmp_path_factory.mktemp("tuned") / "tuned")


def log_of(artefact: Artefact) -> list[dict[str, float]]:
    return [json.loads(line) for line in (artefact.path / "log.jsonl").read_text().splitlines()]


def test_both_stages_learn(tuned: tuple[Artefact, TwoStageTuning]) -> None:
    for stage in (1, 2):
        losses = [line["loss"] for line in log_of(tuned[0]) if line["stage"] == stage]
        assert np.mean(losses[-8:]) < np.mean(losses[:8])


def test_accuracy_on_items_kept_out_is_measured_before_and_after(tuned: tuple[Artefact, TwoStageTuning]) -> None:
    metrics = tuned[0].manifest.metrics
    assert {"stage1_accuracy_before", "stage1_accuracy_after", "backbone_ndcg20", "teacher_ndcg20"} <= metrics.keys()
    assert 0 <= metrics["stage1_accuracy_after"] <= 1
    assert metrics["stage2_cost"]["tokens"] > 0


def test_what_is_loaded_gives_the_logits_that_were_saved(shop: Shop, tuned: tuple[Artefact, TwoStageTuning]) -> None:
    artefact, tuning = tuned
    data = Dataset.open(shop.dataset)
    before = Teacher(tuning.model.eval(), tuning.batches, 512).scores(data.test)
    after = Teacher.load(artefact, data, shop.backbone).scores(data.test)
    assert before.shape == (len(data.test), data.num_items)
    assert torch.allclose(after, before, rtol=1e-5, atol=1e-4)


def test_tuned_text_vectors_survive_saving_and_a_trip_into_a_bundle(
    tuned: tuple[Artefact, TwoStageTuning], encoder: Path, tmp_path: Path
) -> None:
    artefact, tuning = tuned
    texts = ["red soap", "large blue towel"]
    tuning.engine.language_model.eval()
    trained = tuning.engine.embed_texts(texts)
    loaded = SemanticEngine.from_tuned(artefact)
    loaded.export_to(tmp_path)
    elsewhere = SemanticEngine.from_directory(tmp_path)
    assert np.allclose(loaded.embed_texts(texts), trained, atol=1e-4)
    assert np.allclose(elsewhere.embed_texts(texts), trained, atol=1e-4)
    assert elsewhere.fingerprint("c") == loaded.fingerprint("c")
    untuned = SemanticEngine.load(tiny_settings(encoder).engine)
    assert untuned.fingerprint("c") != loaded.fingerprint("c")
    assert not np.allclose(untuned.embed_texts(texts), trained, atol=1e-2)


def test_the_adapter_is_one_that_peft_itself_loads(tuned: tuple[Artefact, TwoStageTuning], encoder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    model = PeftModel.from_pretrained(AutoModel.from_pretrained(encoder), str(tuned[0].path / "adapter"))
    assert any("lora_B" in name and parameter.abs().max() > 0 for name, parameter in model.named_parameters())
    targets = json.loads((tuned[0].path / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert "tmp" not in targets
    assert targets == sorted(targets)


def test_nothing_in_the_artefact_is_a_pickle(tuned: tuple[Artefact, TwoStageTuning]) -> None:
    kinds = {path.suffix for path in tuned[0].path.rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json", ".jsonl"}


def test_another_base_model_is_refused(tuned: tuple[Artefact, TwoStageTuning], tmp_path: Path) -> None:
    copy = tmp_path / "tuned"
    shutil.copytree(tuned[0].path, copy)
    reference = json.loads((copy / "engine.json").read_text())
    reference["settings"]["model"] = str(write_tiny_encoder(tmp_path / "other", seed=5))
    (copy / "engine.json").write_text(json.dumps(reference))
    with pytest.raises(ArtefactError, match="the engine was made with"):
        SemanticEngine.from_tuned(open_artefact(copy, "tuned"))


def test_another_data_set_is_refused(tuned: tuple[Artefact, TwoStageTuning], tmp_path: Path) -> None:
    other = write_shop(tmp_path / "other", seed=3)
    with pytest.raises(ArtefactError, match="do not belong together"):
        load_tuned(tuned[0], Dataset.open(other.dataset), other.backbone)


def test_a_changed_bridge_is_refused(shop: Shop, tuned: tuple[Artefact, TwoStageTuning], tmp_path: Path) -> None:
    copy = tmp_path / "tuned"
    shutil.copytree(tuned[0].path, copy)
    (copy / "bridge.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ArtefactError, match=r"bridge\.safetensors cannot be used"):
        load_tuned(open_artefact(copy, "tuned"), Dataset.open(shop.dataset), shop.backbone)


@pytest.mark.parametrize("cut_after", [(1, 3), (2, 0), (2, 6)])
def test_a_run_that_was_cut_off_follows_the_same_loss_curve(
    shop: Shop, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_after: tuple[int, int]
) -> None:
    settings = tiny_settings(encoder)
    whole, _ = tune(shop, settings, tmp_path / "whole")
    fall_over_after(cut_after, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        tune(shop, settings, tmp_path / "cut")
    monkeypatch.undo()
    resumed, tuning = tune(shop, settings, tmp_path / "cut")
    assert "resumed" in tuning.reporter.events
    assert [line["loss"] for line in log_of(resumed)] == pytest.approx([line["loss"] for line in log_of(whole)], abs=1e-4)
    ours, theirs = load_file(resumed.file("bridge.safetensors")), load_file(whole.file("bridge.safetensors"))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)


@pytest.mark.parametrize("thaw", ["frozen", "gnn", "gnn+ids"])
def test_what_thaws_learns_and_nothing_else(shop: Shop, causal: Path, tmp_path: Path, thaw: str) -> None:
    _, tuning = tune(shop, tiny_settings(causal, thaw=thaw, stage2_examples=32), tmp_path / "tuned")
    before, after = Backbone.load(shop.backbone), tuning.model.backbone
    encoder_moved = any(
        not torch.equal(new, old) for new, old in zip(after.encoder.parameters(), before.encoder.parameters(), strict=True)
    )
    assert encoder_moved == (thaw != "frozen")
    assert torch.equal(after.item_table, before.item_table) == (thaw != "gnn+ids")
    loaded, _ = load_tuned(open_artefact(tmp_path / "tuned", "tuned"), Dataset.open(shop.dataset), shop.backbone)
    assert torch.equal(loaded.backbone.item_table, after.item_table)


def test_gradient_checkpointing_and_accumulation_do_not_change_what_is_learned(
    shop: Shop, causal: Path, tmp_path: Path
) -> None:
    knobs = {"stage2_examples": 32, "lora_dropout": 0.0, "thaw": "frozen", "stage1_epochs": 0}
    plain, _ = tune(shop, tiny_settings(causal, **knobs), tmp_path / "plain")
    saving, _ = tune(shop, tiny_settings(causal, gradient_checkpointing=True, accumulate=2, **knobs), tmp_path / "saving")
    ours, theirs = log_of(saving), log_of(plain)
    assert [line["prompt_loss"] for line in ours] == pytest.approx([line["prompt_loss"] for line in theirs], rel=2e-3)


def test_the_teacher_ranks_whatever_the_batch(shop: Shop, tuned: tuple[Artefact, TwoStageTuning]) -> None:
    data = Dataset.open(shop.dataset)
    teacher = Teacher.load(tuned[0], data, shop.backbone)
    some = data.test.select(np.arange(9))
    together = teacher.scores(some)
    alone = torch.cat([teacher.scores(some.select(np.array([place]))) for place in range(len(some))])
    assert torch.allclose(together, alone, rtol=1e-3, atol=1e-3)
    assert len(evaluate(teacher, some)) == 9


def test_an_empty_prefix_gets_scores(shop: Shop, tuned: tuple[Artefact, TwoStageTuning]) -> None:
    data = Dataset.open(shop.dataset)
    one = data.test.select(np.array([0]))
    empty = type(one)(one.items, one.starts, one.starts, one.targets, one.sessions)
    scores = Teacher.load(tuned[0], data, shop.backbone).scores(empty)
    assert torch.isfinite(scores).all()


def test_a_catalogue_with_too_little_text_is_refused(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    class Bare(Dataset):
        texts = [None] * 72

    with pytest.raises(InputError, match="0 items have both text and clicks"):
        TwoStageTuning(
            Bare(shop.dataset),
            Backbone.load(shop.backbone),
            tiny_settings(encoder),
            directory=tmp_path,
            checkpoints=tmp_path,
            reporter=Quiet(),
        )
