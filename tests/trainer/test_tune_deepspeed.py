"""Tuning in two processes under DeepSpeed's own launcher, ZeRO-2, gloo, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_models import write_tiny_causal
from tiny_tuning import Shop, losses, tiny_settings, tune, write_shop

from llmgr_core.settings import Settings
from trainer.commands.tune import command
from trainer.tune import two_stages
from trainer.tune.checkpoint import read_checkpoint

CONFIG = Path(__file__).parents[2] / "configs" / "deepspeed-zero2.json"
# Nothing random within a step: then any number of processes computes the same batch.
SAME_EVERYWHERE = {"stage1_epochs": 0, "stage2_examples": 64, "lora_dropout": 0.0, "thaw": "frozen", "following_weight": 0.0}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return write_shop(tmp_path / "run")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return tiny_settings(write_tiny_causal(tmp_path / "model"), **SAME_EVERYWHERE)


def tune_alone(shop: Shop, settings: Settings, path: Path) -> list[float]:
    tune(shop, settings, path)
    return losses(path)


def arguments(shop: Shop, settings: Settings) -> list[str]:
    words = ["--run", str(shop.run), "--json", "--deepspeed", str(CONFIG), "--processes", "2"]
    values = {"seed": settings.seed}
    for section in ("engine", "tune"):
        values |= {f"{section}.{key}": value for key, value in getattr(settings, section).model_dump().items()}
    for key, value in values.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    return words


def test_a_run_cut_off_in_one_process_goes_on_in_two_along_the_same_loss_curve(
    shop: Shop, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune_alone(shop, settings, tmp_path / "whole")
    write = two_stages.write_checkpoint

    def write_and_fall_over(directory: Path, position: two_stages.Position, tensors: dict[str, object]) -> None:
        write(directory, position, tensors)
        if (position.stage, position.step) == (2, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(two_stages, "write_checkpoint", write_and_fall_over)
    with pytest.raises(KeyboardInterrupt):
        tune_alone(shop, settings, shop.run / "tuned")
    monkeypatch.undo()
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    outcome = CliRunner().invoke(command, arguments(shop, settings), catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert losses(shop.run / "tuned") == pytest.approx(whole, abs=1e-3)
    manifest = json.loads((shop.run / "tuned" / "manifest.json").read_text())
    assert manifest["details"]["processes"] == 2


@pytest.mark.slow
def test_two_processes_killed_in_the_middle_go_on_in_one_along_the_same_loss_curve(
    shop: Shop, settings: Settings, tmp_path: Path
) -> None:
    whole = tune_alone(shop, settings, tmp_path / "whole")
    program = [sys.executable, "-c", "from trainer.commands.tune import command; command()", *arguments(shop, settings)]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    running = subprocess.Popen(program, env=environment, start_new_session=True)
    checkpoints = shop.run / "tuned.partial" / "checkpoints"
    deadline = time.monotonic() + 240
    while running.poll() is None and time.monotonic() < deadline:
        found = read_checkpoint(checkpoints) if checkpoints.is_dir() else None
        if found and found[0].stage == 2 and found[0].step >= 3:
            break
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert (shop.run / "tuned.partial").is_dir(), "it was over before it could be killed"
    assert tune_alone(shop, settings, shop.run / "tuned") == pytest.approx(whole, abs=1e-3)
