"""Tuning in two processes under DeepSpeed's own launcher, ZeRO-2, gloo, on the CPU."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from killed_process import kill_when_named
from tiny_models import write_tiny_causal
from tiny_tuning import Shop, losses, tiny_settings, tune, write_shop

from llmgr_core.settings import Settings
from trainer.commands.tune import command
from trainer.tune import two_stages
from trainer.tune.checkpoint import NAME, read_checkpoint

CONFIG = Path(__file__).parents[2] / "configs" / "deepspeed-zero2.json"
# Three processes, each of which imports everything: minutes on a machine with other work.
pytestmark = pytest.mark.timeout(3600)
# Nothing random within a step: then any number of processes computes the same batch.
SAME_EVERYWHERE = {"stage1_epochs": 0, "stage2_examples": 64, "lora_dropout": 0.0, "thaw": "frozen", "following_weight": 0.0}
# All processes validate, and must agree on when to stop.
SAME_EVERYWHERE |= {"patience": 9, "validation_steps": 2, "validation_examples": 20}


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


def hold_the_port_of_torch(request: pytest.FixtureRequest) -> None:
    """Let the port by which processes usually find each other be another program's, as any port may be."""
    taken = socket.socket()
    request.addfinalizer(taken.close)
    with suppress(OSError):
        taken.bind(("", 29500))
        taken.listen()


def test_a_run_cut_off_in_one_process_goes_on_in_two_along_the_same_loss_curve(
    shop: Shop, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
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
    hold_the_port_of_torch(request)
    outcome = CliRunner().invoke(command, [*arguments(shop, settings), "--tensorboard"], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert losses(shop.run / "tuned") == pytest.approx(whole, abs=1e-3)
    manifest = json.loads((shop.run / "tuned" / "manifest.json").read_text())
    assert manifest["details"]["processes"] == 2
    metrics, alone = manifest["metrics"], json.loads((tmp_path / "whole" / "manifest.json").read_text())["metrics"]
    assert (metrics["stage2_steps"], metrics["stage2_best_step"]) == (alone["stage2_steps"], alone["stage2_best_step"])
    assert metrics["stage2_best_validation"] == pytest.approx(alone["stage2_best_validation"], abs=1e-3)
    assert 0 < metrics["stage2_share_of_peak"] < 1
    curves = list((shop.run / "tensorboard").rglob("*tfevents*"))
    assert [path.parent.name for path in curves] == ["stage-2"], "only the first process writes"


@pytest.mark.slow
def test_two_processes_killed_in_the_middle_go_on_in_one_along_the_same_loss_curve(
    shop: Shop, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune_alone(shop, settings, tmp_path / "whole")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    program = "from trainer.commands.tune import command; command()"
    # The first checkpoint stands between the stages.
    kill_when_named(program, arguments(shop, settings), f"checkpoints/{NAME}", tmp_path / "hook", count=2)
    found = read_checkpoint(shop.run / "tuned.partial" / "checkpoints")
    assert found is not None
    assert (found[0].stage, found[0].step) == (2, 3)
    assert tune_alone(shop, settings, shop.run / "tuned") == pytest.approx(whole, abs=1e-3)
