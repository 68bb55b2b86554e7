"""The ranker as its own teacher, and as many epochs without one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file
from tiny_models import write_tiny_encoder
from tiny_tuning import tiny_settings, tune, write_shop

from llmgr_core.artefacts import Artefact, open_artefact
from llmgr_core.command_line.main import llmgr
from llmgr_core.data import Dataset
from llmgr_core.errors import SettingsError
from llmgr_core.graphs import SessionBatch
from llmgr_core.ranker.online import OnlineRanker
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.run_directory import RunDirectory
from llmgr_core.sessions import Examples
from llmgr_core.settings import Settings, load_settings
from llmgr_core.store import EmbeddingStore
from trainer.commands.distil import shaping_settings
from trainer.distil.finishing import bare_ranker
from trainer.distil.teacher_rankings import choose_examples
from trainer.experiments import Experiment
from trainer.experiments.links import Links
from trainer.experiments.making import place_needs

TAUGHT = "distil.teacher_model=ranker"
SMALL = ["threads=1", "distil.encoder.dimension=8", "distil.encoder.name=srgnn", "distil.text_rank=8", "distil.patience=9"]
SMALL += ["distil.epochs=2", "distil.batch_size=64", "distil.teacher_examples=40", "distil.teacher_top=7"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a tuned model, its vectors, a ranker taught by a ranker, and one by nobody."""
    root = tmp_path_factory.mktemp("self-teaching")
    shop, model = write_shop(root / "run"), write_tiny_encoder(root / "model")
    settings = tiny_settings(model, stage1_examples=24, stage2_examples=32)
    tune(shop, settings, shop.run / "tuned")
    invoke(shop.run, "embed", f"engine.model={model}", "engine.max_tokens=32")
    distil(shop.run, TAUGHT)
    distil(run_without_rankers(root, root / "untaught"), "distil.teacher=false")
    return root


def run_without_rankers(base: Path, run: Path) -> Path:
    run.mkdir()
    for name in ("dataset", "backbone", "tuned", "store"):
        (run / name).symlink_to(base / "run" / name)
    return run


def invoke(run: Path, step: str, *overrides: str) -> str:
    words = [word for one in overrides for word in ("--set", one)]
    outcome = CliRunner().invoke(llmgr, [step, "--run", str(run), "--json", *words], standalone_mode=False)
    if outcome.exception is not None:
        raise outcome.exception
    return outcome.stderr


def distil(run: Path, *overrides: str) -> str:
    return invoke(run, "distil", f"engine.model={run.parent / 'model'}", "engine.max_tokens=32", *SMALL, *overrides)


def taught(base: Path) -> Artefact:
    return open_artefact(base / "run" / "ranker", "ranker")


def teacher(base: Path) -> Artefact:
    return open_artefact(base / "run" / "ranker-teacher", "ranker")


def test_the_teacher_is_the_ranker_that_has_none(base: Path) -> None:
    untaught = open_artefact(base / "untaught" / "ranker", "ranker")
    assert teacher(base).digest == untaught.digest
    assert taught(base).manifest.details["taught_by"] == untaught.digest
    assert "teacher" not in untaught.manifest.metrics
    assert taught(base).manifest.metrics["teacher"]["teacher_examples"] == 40
    steps = [json.loads(line) for line in (taught(base).path / "log.jsonl").read_text().splitlines()]
    assert any(one.get("imitated") for one in steps)
    assert taught(base).manifest.files["ranker.safetensors"] != untaught.manifest.files["ranker.safetensors"]


def test_the_rankings_kept_are_the_rankers_own_logits(base: Path) -> None:
    dataset = Dataset.open(open_artefact(base / "run" / "dataset", "dataset"))
    # As it was trained, with whole IDs.
    stored = bare_ranker(StoredRanker.read(teacher(base).path))
    assert stored.transform is not None
    with EmbeddingStore.open(base / "run" / "store") as store:
        vectors, present = store.read_vectors(dataset.item_ids, stored.description.fingerprint)
    rows = torch.from_numpy(stored.transform.rows(stored.id_vectors, stored.has_id, vectors, present))
    examples = Examples.every_prefix(dataset.train)
    chosen = examples.select(choose_examples(len(examples), 40, seed=1))
    batch = SessionBatch.from_sessions(chosen.prefixes(stored.description.encoder.max_clicks))
    model = OnlineRanker.from_stored(stored)
    with torch.inference_mode():
        logits = model.scores(rows, batch)
    assert bool((stored.has_id | present).all()), "every item can be ranked"
    best, items = logits.topk(7, dim=1)
    blocks = [load_file(path) for path in (base / "run" / "cache" / "teacher").glob("*.safetensors")]
    assert len(blocks) == 1
    assert np.array_equal(blocks[0]["items"], items.numpy())
    np.testing.assert_allclose(blocks[0]["logits"], (best - best[:, :1]).numpy(), atol=2e-3)
    of_target = logits.gather(1, torch.from_numpy(chosen.targets.astype(np.int64))[:, None])
    assert np.array_equal(blocks[0]["target_ranks"], (1 + (logits > of_target).sum(dim=1)).numpy())


def test_asked_again_neither_of_the_two_is_trained(base: Path) -> None:
    told = distil(base / "run", TAUGHT)
    assert '"up to date"' in told
    assert '"event": "epoch"' not in told


def test_in_an_experiment_the_row_without_a_teacher_is_the_teacher(base: Path, tmp_path: Path) -> None:
    rows = [
        {"name": "ce-only", "label": "no teacher", "set": {"distil.teacher": False}},
        {"name": "self-teacher", "label": "taught by that", "set": {"distil.teacher_model": "ranker"}},
    ]
    one = Experiment.model_validate({"title": "t", "about": "a", "row": rows})
    own = (f"engine.model={base / 'model'}", "engine.max_tokens=32", *SMALL)
    tuned = {f"tune.{key}={json.dumps(value)}" for key, value in tiny_settings(base / "model").tune.model_dump().items()}
    overrides = (*own, *sorted(tuned), "tune.stage1_examples=24", "tune.stage2_examples=32")
    run = run_without_rankers(base, tmp_path / "run")
    links = Links(RunDirectory(run), load_settings(None, overrides), None, overrides)
    untaught, student = (links.of(one, row, 1) for row in one.rows)
    assert student is not None
    assert untaught is not None
    assert [need for need in student.needs if need.kind == "ranker"] == [untaught]
    assert [link.kind for link in student.pending()] == ["ranker", "ranker"]
    untaught.directory.mkdir(parents=True)
    untaught.path.symlink_to(base / "untaught" / "ranker")
    student.directory.mkdir(parents=True)
    place_needs(student)
    outcome = CliRunner().invoke(llmgr, student.command, standalone_mode=False)
    assert outcome.exception is None
    assert (student.directory / "ranker-teacher").is_symlink()
    assert open_artefact(student.path, "ranker").digest == taught(base).digest


def test_epochs_are_multiplied_and_the_rates_decay_with_them(base: Path) -> None:
    run = run_without_rankers(base, base / "longer")
    distil(run, "distil.teacher=false", "distil.epoch_factor=2")
    longer = open_artefact(run / "ranker", "ranker")
    assert longer.manifest.metrics["epochs"] == 2 * teacher(base).manifest.metrics["epochs"] == 4
    distil(run, "distil.teacher=false", "distil.epochs=4")
    assert open_artefact(run / "ranker", "ranker").manifest.files["log.jsonl"] == longer.manifest.files["log.jsonl"]


def test_a_ranker_taught_as_ever_is_the_step_it_was_before_there_was_a_choice() -> None:
    plain = shaping_settings(Settings(), "fused")["distil"]
    assert not {"teacher_model", "epoch_factor"} & set(plain)
    changed = load_settings(None, [TAUGHT, "distil.epoch_factor=2"])
    assert shaping_settings(changed, "fused")["distil"].items() >= {"teacher_model": "ranker", "epoch_factor": 2}.items()
    assert "teacher_model" not in shaping_settings(changed, "id-only")["distil"], "such a ranker has no teacher"
    assert "teacher_model" not in shaping_settings(load_settings(None, [TAUGHT, "distil.teacher=false"]), "fused")["distil"]


def test_rows_cannot_be_pulled_by_a_ranker(base: Path) -> None:
    with pytest.raises(SettingsError, match="needs the W_p of the tuned LLMGR"):
        distil(base / "run", TAUGHT, "distil.row_pull=0.1", "distil.start=backbone")


def test_an_encoder_that_cannot_rank_is_refused_before_the_teacher_is_asked(base: Path, tmp_path: Path) -> None:
    run = run_without_rankers(base, tmp_path / "run")
    text = [f"engine.model={base / 'model'}", "engine.max_tokens=32"]
    with pytest.raises(SettingsError, match="is for the backbone alone"):
        invoke(run, "distil", *text, *SMALL, "distil.encoder.name=hcgr")
    assert not (run / "cache").exists()
