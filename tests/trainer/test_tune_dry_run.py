"""``llmgr tune --dry-run``: what it says is what the run does, and it leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from tiny_tuning import Quiet, Shop, losses, tiny_settings, tune

from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.settings import Settings
from trainer.commands.tune import command
from trainer.tune.dry_run import Layout, dry_run
from trainer.tune.dry_run_table import dry_run_table
from trainer.tune.peak_memory import CLEAR, peak_memory

CONFIG = Path(__file__).parents[2] / "configs" / "deepspeed-zero2.json"


def run_dry(shop: Shop, settings: Settings, *options: str) -> dict:
    words = ["--run", str(shop.run), "--json", "--dry-run", *options, "--set", f"seed={settings.seed}"]
    for section in ("engine", "tune"):
        for key, value in getattr(settings, section).model_dump().items():
            words += ["--set", f"{section}.{key}={json.dumps(value)}"]
    outcome = CliRunner().invoke(command, words, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


def everything_in(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder, by path."""
    found = [directory, *directory.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_it_says_what_the_run_does_and_leaves_nothing_behind(
    shop: Shop, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(encoder)
    unfinished = shop.run / "tuned.partial" / "checkpoints"
    unfinished.mkdir(parents=True)
    (unfinished / "tuning.safetensors").write_bytes(b"of a run that was cut off")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = everything_in(shop.run)
    found = run_dry(shop, settings)
    assert everything_in(shop.run) == before
    assert not list((tmp_path / "temporary").iterdir())
    artefact, tuning = tune(shop, settings, tmp_path / "tuned")
    first, second = found["stages"]
    assert second["trainable_parameters"] == artefact.manifest.details["trainable_parameters"] > first["trainable_parameters"]
    assert found["total_parameters"] == sum(one.numel() for one in tuning.model.parameters())
    assert first["steps"] + second["steps"] == len(losses(artefact.path))
    weights = sum(one.numel() * 4 for one in tuning.model.parameters())
    for stage in (first, second):
        cost = artefact.manifest.metrics[f"stage{stage['stage']}_cost"]
        assert (stage["steps"], stage["examples"]) == (cost["steps"], cost["examples"])
        assert stage["tokens"] == pytest.approx(cost["tokens"], rel=0.3), "three batches speak for all there"
        assert 1 < stage["mean_prompt_tokens"] <= stage["longest_prompt_tokens"] <= 128
        assert weights <= stage["bytes"]["weights"] <= 1.2 * weights
        assert stage["bytes"]["gradients"] == 4 * stage["trainable_parameters"]
        assert stage["bytes"]["moments"] == 8 * stage["trainable_parameters"]
        assert stage["bytes"]["weight_copies"] == stage["bytes"]["buckets"] == 0
        assert stage["peak_memory_bytes"] > sum(stage["bytes"].values())
        assert stage["minutes"] >= 0


def test_its_tokens_are_those_of_every_step(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    settings = tiny_settings(encoder, stage1_epochs=0)
    found = run_dry(shop, settings)
    artefact, _ = tune(shop, settings, tmp_path / "tuned")
    (stage,) = found["stages"]
    metrics = artefact.manifest.metrics
    assert stage["stage"] == 2
    assert stage["counted_steps"] == stage["steps"]
    assert stage["minutes"] == pytest.approx(stage["tokens"] / stage["tokens_per_second"] / 60, abs=0.01)
    assert stage["largest_step_tokens"] * stage["steps"] >= stage["tokens"]
    assert metrics["stage2_cost"]["flops_per_token"] == pytest.approx(stage["flops_per_token"], rel=0.05)


def test_a_model_slower_than_a_token_a_second_has_its_minutes(
    shop: Shop, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = itertools.count(step=86_400.0)
    monkeypatch.setattr("trainer.tune.cost.time", SimpleNamespace(perf_counter=lambda: next(days)))
    found = dry_run(Dataset.open(shop.dataset), Backbone.load(shop.backbone), tiny_settings(encoder), Quiet())
    for stage in found["stages"]:
        assert 0 < stage["tokens_per_second"] < 1
        assert stage["minutes"] == pytest.approx(stage["tokens"] / stage["tokens_per_second"] / 60, rel=0.01)


def test_several_processes_share_what_their_zero_stage_shares(shop: Shop, encoder: Path, tmp_path: Path) -> None:
    settings = tiny_settings(encoder, stage1_epochs=0, batch_size=16)
    found = run_dry(shop, settings, "--deepspeed", str(CONFIG), "--processes", "4")
    assert (found["processes"], found["zero_stage"]) == (4, 2)
    (stage,) = found["stages"]
    learns = 4 * stage["trainable_parameters"]
    assert stage["bytes"]["gradients"] == pytest.approx(learns / 4, abs=4)
    assert stage["bytes"]["moments"] == pytest.approx(2 * learns / 4, abs=8)
    assert stage["bytes"]["weight_copies"] == pytest.approx(learns / 4, abs=4)
    assert stage["bytes"]["buckets"] == 4 * 50_000_000
    alone = run_dry(shop, settings)["stages"][0]
    assert stage["largest_step_tokens"] < alone["largest_step_tokens"] / 2, "each has a quarter of the batch"
    first_stage = tmp_path / "zero1.json"
    first_stage.write_text(json.dumps({"zero_optimization": {"stage": 1, "contiguous_gradients": False}}))
    shares = run_dry(shop, settings, "--deepspeed", str(first_stage), "--processes", "4")["stages"][0]["bytes"]
    assert (shares["gradients"], shares["buckets"]) == (learns, 0)
    assert shares["moments"] == stage["bytes"]["moments"]


@pytest.mark.parametrize("order", ["joint", "swapped"])
def test_other_orders_have_their_own_stages(shop: Shop, encoder: Path, order: str) -> None:
    found = dry_run(Dataset.open(shop.dataset), Backbone.load(shop.backbone), tiny_settings(encoder, order=order), Quiet())
    assert [stage["stage"] for stage in found["stages"]] == {"joint": [2], "swapped": [2, 1]}[order]


def test_a_person_gets_a_table(shop: Shop, encoder: Path) -> None:
    layout = Layout(2, {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}})
    settings = tiny_settings(encoder, accumulate=2)
    found = dry_run(Dataset.open(shop.dataset), Backbone.load(shop.backbone), settings, Quiet(), layout)
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(dry_run_table(found))
    text = console.export_text()
    assert "2 processes, ZeRO-2" in text
    for words in (
        "trainable parameters",
        "optimizer moments",
        "ZeRO: buckets",
        "peak memory",
        "prompt tokens",
        "minutes",
        "stage 2",
    ):
        assert words in text
    assert f"{found['stages'][1]['trainable_parameters']:,}" in text


@pytest.mark.skipif(not CLEAR.exists(), reason="only Linux lets a process forget its peak")
def test_peak_memory_is_that_of_the_work_alone() -> None:
    device = torch.device("cpu")
    large = peak_memory(device, lambda: torch.ones(100 * 2**20))
    small = peak_memory(device, lambda: torch.ones(10 * 2**20))
    # 400 MiB of float32, and 40.
    assert 300 * 2**20 < large - small < 420 * 2**20


@pytest.mark.weights
def test_the_real_minilm(shop: Shop, minilm: Path) -> None:
    settings = Settings.model_validate(
        {
            "engine": {"model": str(minilm)},
            "tune": {"stage2_examples": 16, "stage1_examples": 16, "batch_size": 4, "stage2_epochs": 1},
        }
    )
    found = dry_run(Dataset.open(shop.dataset), Backbone.load(shop.backbone), settings, Quiet())
    # 22.7 million of MiniLM, its pooler left out, and the adapter.
    assert found["language_model_parameters"] == pytest.approx(22.9e6, rel=0.01)
    for stage in found["stages"]:
        assert stage["flops_per_token"] == pytest.approx(4 * 10.6e6, rel=0.15)
        assert 0 < stage["share_of_peak"] < 1
