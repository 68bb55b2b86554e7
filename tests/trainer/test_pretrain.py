"""Pre-training: it learns, it stops, and a run that was cut off goes on as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from killed_process import kill_when_named
from safetensors.torch import load_file

from llmgr_core.encoders import EncoderSettings
from llmgr_core.errors import ArtefactError, InputError, SettingsError
from llmgr_core.evaluation import BackboneScorer, PopularityScorer, evaluate, summarise
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.pretrain import PretrainSettings
from trainer.catalogue_training.checkpoint import CHECKPOINT_NAME
from trainer.commands.evaluate import command as evaluate_command
from trainer.commands.pretrain import command as pretrain_command
from trainer.pretrain import Pretraining

NUM_ITEMS = 50


class Quiet(Reporter):
    """Says nothing, and can pull the plug after some steps or at the end of an epoch."""

    def __init__(self, fail_at: str | None = None, fail_after: int = 0) -> None:
        super().__init__(as_json=True)
        self.fail_at, self.left = fail_at, fail_after
        self.events: list[str] = []

    def event(self, name, **fields):
        self.events.append(name)
        if name == self.fail_at:
            self.left -= 1
            if self.left <= 0:
                raise KeyboardInterrupt


def walks(number: int = 120, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, NUM_ITEMS, size=number)
    return [((start + np.arange(generator.integers(4, 9))) % NUM_ITEMS).tolist() for start in starts]


def training(directory: Path, reporter: Reporter | None = None, sessions=None, **knobs) -> Pretraining:
    sessions = walks() if sessions is None else sessions
    train = Sessions.from_lists([walk[:-1] for walk in sessions])
    validation = Examples.last_click(Sessions.from_lists(sessions))
    directory.mkdir(exist_ok=True)
    settings = PretrainSettings(**{"epochs": 4, "batch_size": 64, "warmup_steps": 0, "learning_rate": 1e-2, **knobs})
    return Pretraining(
        train,
        validation,
        NUM_ITEMS,
        encoder=EncoderSettings(dimension=16),
        settings=settings,
        seed=3,
        directory=directory,
        checkpoints=directory,
        reporter=reporter or Quiet(),
    )


def log_of(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def test_it_learns_a_path_better_than_popularity(tmp_path):
    outcome = training(tmp_path, epochs=12).run()
    sessions = walks(seed=9)
    test = Examples.last_click(Sessions.from_lists(sessions))
    counts = np.bincount(np.concatenate(walks()), minlength=NUM_ITEMS)
    learned = summarise(evaluate(BackboneScorer(outcome.model), test).masked)
    assert learned["NDCG@10"] > 2 * summarise(evaluate(PopularityScorer(counts), test).masked)["NDCG@10"]
    means = [line["mean_loss"] for line in log_of(tmp_path) if "mean_loss" in line]
    assert means[-1] < means[0] / 2


@pytest.mark.parametrize(("fail_at", "fail_after"), [("epoch", 1), ("epoch", 3), ("progress", 2)])
def test_a_run_cut_off_and_resumed_follows_the_same_loss_curve(tmp_path, monkeypatch, fail_at, fail_after):
    whole = training(tmp_path / "whole").run()
    monkeypatch.setattr("llmgr_core.progress.SECONDS_BETWEEN_LINES", 0.0)
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "cut", Quiet(fail_at, fail_after), checkpoint_minutes=1e-9).run()
    steps_before = len(log_of(tmp_path / "cut"))
    reporter = Quiet()
    resumed = training(tmp_path / "cut", reporter, checkpoint_minutes=1e-9).run()
    assert reporter.events[0] == "resume" or steps_before <= 1
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)
    assert resumed.validation == whole.validation


def test_a_resumed_run_that_had_ended_ends_at_once(tmp_path):
    first = training(tmp_path).run()
    again = training(tmp_path).run()
    assert again.epochs == first.epochs
    assert again.epoch_seconds == []
    assert again.validation == first.validation


def test_it_stops_early_and_keeps_the_best_epoch(tmp_path):
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, NUM_ITEMS, size=6).tolist() for _ in range(60)]
    outcome = training(tmp_path, sessions=noise, epochs=60, patience=2).run()
    epochs = [line for line in log_of(tmp_path) if "mean_loss" in line]
    assert len(epochs) == outcome.epochs < 60
    assert outcome.best_epoch == outcome.epochs - 2
    assert outcome.validation["NDCG@20"] == max(line["NDCG@20"] for line in epochs)


def test_the_checkpoint_is_safetensors_and_a_torn_one_is_named(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, Quiet("epoch", 2)).run()
    tensors = load_file(tmp_path / CHECKPOINT_NAME)
    assert {name.partition(":")[0] for name in tensors} == {"model", "best", "optimizer", "random"}
    (tmp_path / CHECKPOINT_NAME).write_bytes(b"torn")
    with pytest.raises(ArtefactError, match="--force"):
        training(tmp_path)


def test_sessions_of_one_click_cannot_be_trained_on(tmp_path):
    with pytest.raises(InputError, match="two clicks"):
        training(tmp_path, sessions=[[1, 2], [3, 4]])


def write_data(directory: Path) -> None:
    directory.mkdir()
    items = [{"item_id": f"item {place}", "title": f"Thing number {place}"} for place in range(NUM_ITEMS)]
    sessions = [{"session_id": str(n), "items": [f"item {i}" for i in walk]} for n, walk in enumerate(walks(300))]
    for name, rows in (("items", items), ("sessions", sessions)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A run directory with a small data set in it."""
    from llmgr_core.commands.prepare import command as prepare_command

    root = tmp_path_factory.mktemp("run")
    write_data(root / "data")
    answer = CliRunner().invoke(prepare_command, ["--run", str(root / "run"), "--data", str(root / "data")])
    assert answer.exit_code == 0, answer.output
    return root / "run"


FAST = ["--set", "encoder.dimension=16", "--set", "pretrain.epochs=3", "--set", "pretrain.batch_size=64"]


def test_commands_train_once_evaluate_and_explain_themselves(prepared):
    run = ["--run", str(prepared), *FAST]
    first = CliRunner().invoke(pretrain_command, run)
    assert first.exit_code == 0, first.output
    manifest = json.loads((prepared / "backbone" / "manifest.json").read_text())
    assert set(manifest["files"]) == {"backbone.safetensors", "encoder.json", "log.jsonl"}
    assert manifest["metrics"]["validation"]["NDCG@20"] > 0
    again = CliRunner().invoke(pretrain_command, run)
    assert "up to date" in again.output

    answer = CliRunner().invoke(evaluate_command, [*run, "--set", "evaluate.resamples=100"])
    assert answer.exit_code == 0, answer.output
    results = json.loads((prepared / "evaluation" / "results.json").read_text())
    assert list(results["splits"]["test"]["scorers"]) == ["popularity", "sknn", "floor", "backbone"]
    assert results["splits"]["test"]["reference"] == "backbone"
    assert results["protocol"]["data"]["split"] == "leave-one-out"
    examples = results["splits"]["test"]["examples"]["all"]
    assert np.load(prepared / "evaluation" / "ranks" / "test.backbone.npy").shape == (2, examples)
    for name in ("tables.txt", "report.html"):
        assert "backbone" in (prepared / "evaluation" / name).read_text()
    for name in ("test-buckets.svg", "test-differences.svg"):
        assert (prepared / "evaluation" / "plots" / name).read_text().startswith("<?xml")

    for absent in ("nobody", "teacher"):
        nobody = CliRunner().invoke(evaluate_command, [*run, "--set", f"evaluate.reference={absent}"])
        assert isinstance(nobody.exception, SettingsError)
        assert "there are popularity, sknn, floor, backbone, or auto" in str(nobody.exception)

    same_seed = CliRunner().invoke(evaluate_command, [*run, "--seed-run", str(prepared)])
    assert isinstance(same_seed.exception, ArtefactError)
    assert "different" in str(same_seed.exception)


def test_a_killed_process_is_taken_up_where_it_stood(prepared, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for run in (whole, cut):
        run.mkdir()
        (run / "dataset").symlink_to(prepared / "dataset")
    knobs = [*FAST, "--set", "pretrain.epochs=12", "--set", "pretrain.patience=12"]
    knobs += ["--set", "pretrain.checkpoint_minutes=1e-9", "--set", "threads=1"]
    program = "from trainer.commands.pretrain import command; command()"
    kill_when_named(program, ["--run", str(cut), *knobs], f"checkpoints/{CHECKPOINT_NAME}", tmp_path / "hook")
    assert not (cut / "backbone").exists()
    torch.set_num_threads(1)
    for run in (cut, whole):
        answer = CliRunner().invoke(pretrain_command, ["--run", str(run), *knobs])
        assert answer.exit_code == 0, answer.output
        assert ("resume" in answer.output) == (run == cut)
    assert (cut / "backbone" / "log.jsonl").read_bytes() == (whole / "backbone" / "log.jsonl").read_bytes()
    digests = [json.loads((run / "backbone" / "manifest.json").read_text())["digest"] for run in (cut, whole)]
    assert digests[0] == digests[1]
