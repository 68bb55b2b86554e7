"""Sweeps: equal trials chosen on validation alone, and a killed one goes on to the same end."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from killed_process import kill_when_named

from llmgr_core.artefacts import open_artefact
from llmgr_core.commands.prepare import command as prepare_command
from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.errors import ArtefactError, InputError
from llmgr_core.evaluation import BackboneScorer
from llmgr_core.settings import load_settings
from llmgr_core.settings.encoder import EncoderName
from trainer.catalogue_training.checkpoint import CHECKPOINT_NAME
from trainer.commands.pretrain import command as pretrain_command
from trainer.commands.tune_backbone import command
from trainer.sweep.collect import copy_best_settings
from trainer.sweep.directory import SweepDirectory
from trainer.sweep.space import SPACES

NUM_ITEMS = 40
SMALL = [
    *("--set", "encoder.dimension=8", "--set", "pretrain.epochs=3", "--set", "pretrain.batch_size=64", "--set", "threads=1"),
    *("--set", "sweep.startup_trials=2", "--set", "sweep.pruning_trials=1", "--set", "sweep.pruning_after=1"),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small prepared data set whose test examples cannot be read: any attempt is an error."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    walks = [(generator.integers(NUM_ITEMS) + np.arange(generator.integers(5, 9))) % NUM_ITEMS for _ in range(80)]
    items = [{"item_id": f"item {place}", "title": f"Thing number {place}"} for place in range(NUM_ITEMS)]
    sessions = [{"session_id": str(n), "items": [f"item {i}" for i in walk]} for n, walk in enumerate(walks)]
    for name, rows in (("items", items), ("sessions", sessions)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    answer = CliRunner().invoke(prepare_command, ["--run", str(root / "run"), "--data", str(root)])
    assert answer.exit_code == 0, answer.output
    shutil.copytree(root / "run" / "dataset", intact(root / "run" / "dataset"))
    for split in ("test", "heldout"):
        for path in (root / "run" / "dataset" / split).glob("*.npy"):
            path.write_bytes(b"nobody may read this")
    with pytest.raises(ValueError, match="pickle"):
        _ = Dataset.open(open_artefact(root / "run" / "dataset", "dataset")).test
    return root / "run" / "dataset"


def intact(dataset: Path) -> Path:
    """The same data set, all of which may be read: pre-training checks every file before it begins."""
    return dataset.with_name("intact")


@pytest.fixture
def run(dataset: Path, tmp_path: Path) -> Path:
    """A run directory with the data set in it and nothing else."""
    torch.set_num_threads(1)
    return with_dataset(tmp_path / "run", dataset)


def with_dataset(directory: Path, dataset: Path) -> Path:
    directory.mkdir()
    (directory / "dataset").symlink_to(dataset)
    return directory


def sweep(run: Path, *more: str, model: str = "gru4rec", trials: int = 2) -> Result:
    arguments = ["--run", str(run), "--model", model, "--trials", str(trials), *SMALL, *more]
    return CliRunner().invoke(command, arguments)


def read(run: Path, model: str = "gru4rec") -> dict[str, Any]:
    written: dict[str, Any] = json.loads((run / "sweeps" / model / "trials.json").read_text())
    return written


def timeless(trials: dict[str, Any]) -> dict[str, Any]:
    """Without what depends on the clock or on the words of the command line."""
    del trials["protocol"]["command"], trials["budget"]["seconds"]
    for trial in trials["trials"]:
        del trial["seconds"]
    return trials


def test_a_sweep_keeps_its_best_trial_and_says_what_it_cost(run: Path) -> None:
    answer = sweep(run, trials=4)
    assert answer.exit_code == 0, (answer.output, answer.exception)
    found = read(run)
    trials = found["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    defaults = load_settings(None, ["encoder.name=gru4rec"])
    assert trials[0]["settings"]["pretrain.learning_rate"] == defaults.pretrain.learning_rate
    assert trials[0]["settings"]["encoder.dropout"] == defaults.encoder.dropout
    assert len({json.dumps(trial["settings"]) for trial in trials}) == 4
    for trial in trials:
        assert len(trial["curve"]["loss"]) == len(trial["curve"]["NDCG@20"]) == trial["epochs"] > 0
        assert trial["value"] == max(trial["curve"]["NDCG@20"]) == trial["curve"]["NDCG@20"][trial["best_epoch"] - 1]
        assert trial["seconds"] > 0
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: trial["value"])
    assert found["best"] == best["number"]
    assert found["budget"]["trials"] == 4
    assert found["budget"]["epochs"] == sum(trial["epochs"] for trial in trials)
    assert found["protocol"]["data"]["split"] == "leave-one-out"

    artefact = open_artefact(run / "sweeps" / "gru4rec" / "best", "backbone", verify=True)
    artefact.require_same_lineage(open_artefact(run / "dataset", "dataset"))
    assert artefact.manifest.details["budget"] == found["budget"]
    assert artefact.manifest.details["trial"] == best["number"]
    assert artefact.manifest.metrics["validation"] == best["validation"]
    assert BackboneScorer(Backbone.load(artefact)).name == "backbone"
    assert sorted(path.name for path in (run / "sweeps" / "gru4rec" / "trials").iterdir()) == [f"{best['number']:04d}"]

    again = sweep(run, trials=4)
    assert "up to date" in again.output
    assert json.loads(again.output.splitlines()[-1])["best"] == best["number"]
    assert timeless(read(run)) == timeless(found)
    shutil.rmtree(run / "sweeps" / "gru4rec" / "best")
    assert sweep(run, trials=4).exit_code == 0
    assert open_artefact(run / "sweeps" / "gru4rec" / "best", "backbone", verify=True).digest == artefact.digest


def test_pretraining_with_the_best_settings_gives_the_best_model(run: Path, dataset: Path) -> None:
    answer = sweep(run, model="bsarec")
    assert answer.exit_code == 0, (answer.output, answer.exception)
    (run / "dataset").unlink()
    (run / "dataset").symlink_to(intact(dataset))
    best = run / "sweeps" / "bsarec" / "best.toml"
    again = CliRunner().invoke(pretrain_command, ["--run", str(run), "--config", str(best)])
    assert again.exit_code == 0, (again.output, again.exception)
    digests = [open_artefact(path, "backbone").digest for path in (run / "backbone", run / "sweeps" / "bsarec" / "best")]
    assert digests[0] == digests[1]
    settings = tomllib.loads(best.read_text())
    assert settings["encoder"]["name"] == "bsarec"
    assert "window" not in settings["encoder"]


def test_more_trials_go_on_from_those_there_are(run: Path) -> None:
    sweep(run, trials=1)
    one = read(run)["trials"]
    sweep(run, trials=3)
    three = read(run)["trials"]
    assert len(three) == 3
    assert three[0] == one[0]
    sweep(run, "--force", trials=1)
    assert len(read(run)["trials"]) == 1


def test_a_trial_under_the_median_is_given_up_and_told_so(run: Path) -> None:
    answer = sweep(run, "--set", "pretrain.epochs=6", "--set", "pretrain.learning_rate=1e-2", trials=4)
    assert answer.exit_code == 0, (answer.output, answer.exception)
    found = read(run)
    pruned = [trial for trial in found["trials"] if trial["state"] == "pruned"]
    assert pruned
    assert len(pruned) == found["budget"]["pruned"]
    assert all(trial["epochs"] < 6 for trial in pruned)
    sweep(run, "--force", "--set", "pretrain.epochs=6", "--set", "sweep.pruning=false", trials=pruned[0]["number"] + 1)
    assert read(run)["budget"]["pruned"] == 0


def test_a_trial_that_diverges_has_failed_and_the_sweep_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.pretrain import Pretraining

    whole = Pretraining.loss

    def loss(self: Any, batch: Any, targets: Any, examples: Any) -> Any:
        value, figures = whole(self, batch, targets, examples)
        return (value * float("nan") if self.options.learning_rate == 3e-3 else value), figures

    monkeypatch.setattr(Pretraining, "loss", loss)
    with pytest.raises(InputError, match="no trial of gru4rec has come to its end"):
        raise_what_it_raised(sweep(run, trials=1))
    answer = sweep(run, trials=2)
    assert answer.exit_code == 0, (answer.output, answer.exception)
    first, second = read(run)["trials"]
    assert (first["state"], first["value"]) == ("failed", None)
    assert "the loss became nan" in first["error"]
    assert (second["state"], read(run)["best"]) == ("complete", 1)


def raise_what_it_raised(result: Result) -> None:
    assert result.exception is not None
    raise result.exception


# A checkpoint at every step, so that a kill falls inside an epoch.
OFTEN = ["--set", "pretrain.checkpoint_minutes=1e-9"]


def kill_in_trial(run: Path, number: int, place: Path) -> None:
    """Sweep until the first checkpoint of a trial stands."""
    arguments = ["--run", str(run), "--model", "gru4rec", "--trials", "3", *SMALL, *OFTEN]
    program = "from trainer.commands.tune_backbone import command; command()"
    kill_when_named(program, arguments, f"trials/{number:04}/checkpoints/{CHECKPOINT_NAME}", place)


def test_a_sweep_killed_inside_its_trials_ends_as_if_it_had_not_been(run: Path, dataset: Path, tmp_path: Path) -> None:
    cut = with_dataset(tmp_path / "cut", dataset)
    places = cut / "sweeps" / "gru4rec"
    kill_in_trial(cut, 0, tmp_path / "hook")
    assert not places.joinpath("trials.json").exists()
    kill_in_trial(cut, 1, tmp_path / "hook")
    # What a power cut may leave besides: half a line, and the journal's lock.
    with (places / "study.jsonl").open("ab") as stream:
        stream.write(b'{"op_code":7,"wor')
    (places / "study.jsonl.lock").symlink_to("study.jsonl")
    resumed = sweep(cut, *OFTEN, trials=3)
    assert resumed.exit_code == 0, (resumed.output, resumed.exception)
    assert '"resume"' in resumed.output
    whole = sweep(run, *OFTEN, trials=3)
    assert whole.exit_code == 0, (whole.output, whole.exception)
    assert '"resume"' not in whole.output
    assert timeless(read(cut)) == timeless(read(run))
    assert (places / "best.toml").read_text() == (run / "sweeps" / "gru4rec" / "best.toml").read_text()
    digests = [open_artefact(root / "sweeps" / "gru4rec" / "best", "backbone").digest for root in (cut, run)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("moment", ["settings", "seconds", "loss", "outcome", "tell", "write", "clear"])
def test_a_process_that_dies_between_two_writes_is_taken_up_there(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    import optuna

    from trainer.sweep.sweep import Sweep

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def until(name: str, whole: Any) -> Any:
        return lambda self, key, value: die() if key == name else whole(self, key, value)

    cut = with_dataset(tmp_path / "cut", dataset)
    with monkeypatch.context() as patch:
        if moment == "tell":
            patch.setattr(optuna.Study, "tell", die)
        elif moment in {"write", "clear"}:
            # the first call of _clear is before any trial
            calls = iter([True, False])
            whole = getattr(Sweep, f"_{moment}")
            patch.setattr(Sweep, f"_{moment}", lambda self: whole(self) if moment == "clear" and next(calls) else die())
        else:
            patch.setattr(optuna.trial.Trial, "set_user_attr", until(moment, optuna.trial.Trial.set_user_attr))
        assert sweep(cut, trials=1).exit_code == 1
    assert sweep(cut, trials=2).exit_code == 0
    assert sweep(run, trials=2).exit_code == 0
    assert timeless(read(cut)) == timeless(read(run))


def test_a_sweep_goes_on_only_under_its_own_settings(run: Path) -> None:
    sweep(run, trials=1)
    with pytest.raises(ArtefactError, match=r"pretrain\.patience was 3, is 2") as caught:
        raise_what_it_raised(sweep(run, "--set", "pretrain.patience=2", trials=2))
    assert "--force" in str(caught.value)
    assert sweep(run, "--set", "pretrain.checkpoint_minutes=9", trials=1).exit_code == 0


def test_two_processes_do_not_sweep_one_model(run: Path) -> None:
    from trainer.sweep.directory import SweepDirectory

    places = SweepDirectory.of(run, "gru4rec")
    with places.writing(), pytest.raises(ArtefactError, match="another process is sweeping"):
        raise_what_it_raised(sweep(run))


def test_the_log_of_all_sweeps_is_collected_with_its_protocol(run: Path, tmp_path: Path) -> None:
    for model in ("gru4rec", "fpmc"):
        assert sweep(run, model=model, trials=1).exit_code == 0
    out, configs = tmp_path / "sweeps.json", tmp_path / "configs"
    answer = CliRunner().invoke(command, ["--run", str(run), "--collect", str(out), "--configs", str(configs)])
    assert answer.exit_code == 0, (answer.output, answer.exception)
    found = json.loads(out.read_text())
    assert {"seed", "command", "commit", "machine", "data", "dataset"} <= found["protocol"].keys()
    assert list(found["models"]) == ["fpmc", "gru4rec"]
    for model, log in found["models"].items():
        assert log["budget"]["trials"] == len(log["trials"]) == 1
        assert log["trials"][0]["value"] == pytest.approx(read(run, model)["trials"][0]["value"], rel=1e-5)
        assert {"command", "commit", "machine"} <= log["made"].keys()
        assert load_settings(configs / f"{model}.toml").encoder.name == model
        lines = (configs / f"{model}.toml").read_text().splitlines()
        assert lines[0].startswith("#")
    with pytest.raises(ArtefactError, match="seed 1, not 2"):
        raise_what_it_raised(CliRunner().invoke(command, ["--run", str(run), "--collect", str(out), "--set", "seed=2"]))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "sasrek"], "did you mean sasrec?"),
        (["--model", "GC-SAN"], "did you mean gcsan?"),
        (["--model", "transformer"], "There are gcsan, srgnn"),
        ([], "name an encoder with --model"),
        (["--model", "gcsan", "--trials", "0"], "--trials"),
    ],
)
def test_a_wrong_request_is_told_what_would_be_right(run: Path, arguments: list[str], complaint: str) -> None:
    answer = CliRunner().invoke(command, ["--run", str(run), *arguments])
    assert answer.exit_code == 2
    assert complaint in " ".join(answer.output.split())


def test_a_run_without_data_or_without_sweeps_says_what_comes_first(tmp_path: Path, run: Path) -> None:
    with pytest.raises(ArtefactError, match="no dataset at"):
        raise_what_it_raised(sweep(tmp_path))
    with pytest.raises(ArtefactError, match="holds no sweep"):
        raise_what_it_raised(CliRunner().invoke(command, ["--run", str(run), "--configs", str(tmp_path / "configs")]))
    assert not (tmp_path / "configs").exists()


def test_best_settings_that_cannot_be_written_are_an_error_in_words(tmp_path: Path) -> None:
    SweepDirectory.of(tmp_path, "gcsan").root.mkdir(parents=True)
    SweepDirectory.of(tmp_path, "gcsan").trials.write_text("{}")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="file/configs cannot be written to"):
        copy_best_settings(tmp_path, tmp_path / "file" / "configs")


def test_every_encoder_has_a_space() -> None:
    assert set(SPACES) == set(get_args(EncoderName))
