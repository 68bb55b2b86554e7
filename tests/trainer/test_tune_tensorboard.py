"""Curves of the tuning for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_tuning import Shop, tiny_settings

from llmgr_core.artefacts import open_artefact
from llmgr_core.errors import SettingsError
from llmgr_core.settings import Settings
from trainer.commands.tune import command, shaping_settings
from trainer.tune import two_stages
from trainer.tune.scalars import Scalars


def tune(shop: Shop, run: Path, settings: Settings, *options: str) -> None:
    """The command, on links to the shop's artefacts."""
    run.mkdir(exist_ok=True)
    for artefact in (shop.dataset, shop.backbone):
        if not (run / artefact.path.name).exists():
            (run / artefact.path.name).symlink_to(artefact.path)
    words = ["--run", str(run), "--json", *options, "--set", f"seed={settings.seed}"]
    for section in ("engine", "tune"):
        for key, value in getattr(settings, section).model_dump().items():
            words += ["--set", f"{section}.{key}={json.dumps(value)}"]
    outcome = CliRunner().invoke(command, words)
    if outcome.exception is not None:
        raise outcome.exception


def curves(run: Path, stage: int) -> dict[str, list[tuple[int, float]]]:
    (directory,) = (run / "tensorboard").iterdir()
    reader = EventAccumulator(str(directory / f"stage-{stage}"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def log_of(run: Path, stage: int) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "tuned" / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == stage]


def check(run: Path, learning_rate: float) -> None:
    """Every figure of the log once, and nothing else."""
    for stage in (1, 2):
        found = curves(run, stage)
        steps = [line for line in log_of(run, stage) if "loss" in line]
        for key in ("loss", "prompt_loss", "item_loss", "rate", *(["correct"] if stage == 1 else [])):
            assert [step for step, _ in found[key]] == [line["step"] + 1 for line in steps], key
            assert [value for _, value in found[key]] == pytest.approx([line[key] for line in steps], abs=1e-4)
        assert [value for _, value in found["learning_rate"]] == pytest.approx(
            [line["rate"] * learning_rate for line in steps], abs=1e-6
        )
        assert len(found["tokens_per_second"]) == len(found["share_of_peak"]) == len(steps)
        validations = [line for line in log_of(run, stage) if "steps" in line]
        accuracy = found.get("validation_accuracy", [])
        assert [step for step, _ in accuracy] == [line["steps"] for line in validations]
        assert [value for _, value in accuracy] == pytest.approx([line["accuracy"] for line in validations], abs=1e-5)


def test_nothing_is_written_unless_asked_for(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    tune(shop, tmp_path / "run", tiny_settings(encoder, stage1_epochs=0, stage2_examples=16))
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert "tensorboard" not in shaping_settings(tiny_settings(encoder, tensorboard=True))["tune"]


@pytest.mark.parametrize("cut_after", [(1, 6), (2, 3)])
def test_a_run_that_was_cut_off_goes_on_in_the_same_curves_and_doubles_no_step(
    shop: Shop, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_after: tuple[int, int]
) -> None:
    settings = tiny_settings(encoder, stage2_examples=64, patience=9, validation_steps=3, validation_examples=20)
    seed, cut = two_stages.train_stage.__globals__["step_seed"], [cut_after]

    def seed_or_fall_over(base: int, stage: int, step: int, rank: int) -> int:
        # Two steps past the last checkpoint: what they told TensorBoard is told again.
        if cut and (stage, step) == (cut[0][0], cut[0][1] + 2):
            cut.clear()
            raise KeyboardInterrupt
        return seed(base, stage, step, rank)

    write = Scalars.write

    def write_at_once(self: Scalars, *arguments: Any) -> None:
        write(self, *arguments)
        self.flush()

    monkeypatch.setitem(two_stages.train_stage.__globals__, "step_seed", seed_or_fall_over)
    monkeypatch.setattr(Scalars, "write", write_at_once)
    run = tmp_path / "run"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        tune(shop, run, settings, "--tensorboard")
    assert not (run / "tuned").exists()
    assert [step for step, _ in curves(run, cut_after[0])["loss"]] == list(range(1, cut_after[1] + 3))
    tune(shop, run, settings, "--tensorboard")
    check(run, settings.tune.learning_rate)
    files = {path.name for path in (run / "tuned").rglob("*")}
    assert not [name for name in files if "tfevents" in name], (
        "curves hold times: an artefact with them has no digest to compare"
    )


def test_a_run_that_starts_anew_replaces_its_curves(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    settings = tiny_settings(encoder, stage2_examples=32, tensorboard=True)
    for _ in range(2):
        tune(shop, tmp_path / "run", settings, "--force")
        check(tmp_path / "run", settings.tune.learning_rate)
    written = open_artefact(tmp_path / "run" / "tuned", "tuned").manifest
    assert "tensorboard" not in written.settings["tune"]


def test_without_tensorboard_the_error_names_the_extra(
    shop: Shop, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delattr(torch.utils, "tensorboard", raising=False)
    with pytest.raises(SettingsError, match=r"pip install 'llmgr\[tensorboard\]'"):
        tune(shop, tmp_path / "run", tiny_settings(encoder), "--tensorboard")
    assert not (tmp_path / "run" / "tuned.partial").exists()
