"""`llmgr distil` keeps the weights of the ranker that stands where only what follows training has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from text_run import command, make_text_run

from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.settings import ranker_keys
from llmgr_core.settings.controls import ControlSettings
from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.store import EmbeddedText, StoreWriter

CHANGED = (
    "transitions.text_new_targets=3",
    "transitions.window=2",
    "distil.heldout_loss=0.5",
    "transitions.text_targets=2",
    "distil.id_prior=[0.5,2]",
)
WEIGHTS = ("ranker.safetensors", "item_transform.safetensors")


@pytest.mark.parametrize(
    ("section", "trained", "fitted", "incidental"),
    [
        (DistilSettings, ranker_keys.TRAINED, ranker_keys.FITTED, ranker_keys.INCIDENTAL),
        (EncoderSettings, ranker_keys.TRAINED_ENCODER, frozenset(), frozenset()),
        (ControlSettings, ranker_keys.TRAINED_CONTROLS, frozenset(), frozenset()),
        (TransitionSettings, frozenset(), ranker_keys.FITTED_TRANSITIONS, frozenset()),
    ],
)
def test_it_is_settled_of_every_key_what_it_shapes(section, trained, fitted, incidental):
    """A new key must be put into one of the sets of llmgr_core/settings/ranker_keys.py."""
    assert sorted([*trained, *fitted, *incidental]) == sorted(section.model_fields)


def test_a_ranker_without_text_is_the_same_whatever_is_set_for_text():
    def made(variant: str, **distil: float) -> dict:
        settings = DistilSettings(**distil).model_dump()
        return {"seed": 1, "variant": variant, "distil": settings, "transitions": TransitionSettings().model_dump()}

    plain, other = made("id-only"), made("id-only", whitening=0.5, text_below=3, teacher=False, id_dropout=0.9)
    del plain["transitions"]["text_kept"], plain["distil"]["text_below"]
    assert ranker_keys.settings_without_text(plain) == ranker_keys.settings_without_text(other)
    assert ranker_keys.settings_without_text(plain) != ranker_keys.settings_without_text(made("id-only", heldout_loss=0.5))
    frozen, other = made("frozen-text"), made("frozen-text", teacher=False)
    assert ranker_keys.training_settings(frozen) == ranker_keys.training_settings(other)
    assert ranker_keys.training_settings(frozen) != ranker_keys.training_settings(made("frozen-text", id_dropout=0.9))
    assert ranker_keys.training_settings(made("fused")) != ranker_keys.training_settings(made("fused", teacher=False))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a ranker over frozen text."""
    run = make_text_run(tmp_path_factory.mktemp("again"))
    distil(run)
    return run


def distil(run: Path, *overrides: str, more: tuple[str, ...] = ()) -> tuple[dict, bool]:
    """The manifest, and whether a training was run."""
    model = f"engine.model={(run.parent / 'model').resolve()}"
    told = command(run, "distil", model, *overrides, more=("--variant", "frozen-text", *more))
    trained = '"event": "epoch"' in told
    assert trained != ("not trained again" in told)
    return json.loads((run / "ranker-frozen-text" / "manifest.json").read_text()), trained


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    (tmp_path / "model").symlink_to(made.parent / "model")
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_the_weights_are_kept_and_the_rest_is_that_of_a_fresh_run(run: Path, made: Path, tmp_path: Path):
    first = json.loads((run / "ranker-frozen-text" / "manifest.json").read_text())
    again, trained = distil(run, *CHANGED)
    assert not trained
    assert again["details"]["weights_of"] == first["digest"]
    for name in WEIGHTS:
        assert again["files"][name] == first["files"][name]
    assert again["files"]["transitions.safetensors"] != first["files"]["transitions.safetensors"]
    fresh, trained = distil(run, *CHANGED, more=("--force",))
    assert trained
    assert {**again["files"], "log.jsonl": ""} == {**fresh["files"], "log.jsonl": ""}
    assert again["identity"] == fresh["identity"]
    for name in ("validation", "best_epoch", "transitions", "calibration", "id_prior"):
        assert again["metrics"][name] == fresh["metrics"][name]
    assert again["metrics"]["transitions"]["heldout"] is not None
    chosen = again["metrics"]["id_prior"]
    assert sorted(chosen["validation"]) == ["0.5", "2"]
    assert StoredRanker.read(run / "ranker-frozen-text").description.id_prior == chosen["chosen"] in (0.5, 2.0)


def test_a_third_ranker_still_says_whose_weights_it_has(run: Path):
    first = json.loads((run / "ranker-frozen-text" / "manifest.json").read_text())
    distil(run, *CHANGED)
    third, trained = distil(run, "transitions.clicks=3", "distil.id_prior=[0]")
    assert not trained
    assert "id_prior" not in third["metrics"]
    assert StoredRanker.read(run / "ranker-frozen-text").description.id_prior == 0.0
    assert third["details"]["weights_of"] == first["digest"]


def test_a_ranker_from_before_some_settings_is_of_use(run: Path):
    """Its manifest does not name them: they have their defaults. Neither does it name the text vectors it saw."""
    path = run / "ranker-frozen-text" / "manifest.json"
    older = json.loads(path.read_text())
    for key in [key for key in older["settings"]["transitions"] if key.startswith("text_new_")]:
        del older["settings"]["transitions"][key]
    del older["settings"]["distil"]["clip_norm"], older["details"]["text_vectors"]
    path.write_text(json.dumps(older))
    again, trained = distil(run, "transitions.text_new_targets=3")
    assert not trained
    assert again["files"]["ranker.safetensors"] == older["files"]["ranker.safetensors"]
    assert StoredRanker.read(path.parent).lenders is not None


@pytest.mark.parametrize(
    "change", ["distil.learning_rate=0.001", "seed=2", "distil.encoder.dropout=0.1", "engine.max_tokens=16"]
)
def test_what_training_reads_trains_again(run: Path, change: str):
    if change.startswith("engine"):
        command(run, "embed", f"engine.model={(run.parent / 'model').resolve()}", change, more=("--untuned",))
    assert distil(run, change)[1]


def test_other_text_vectors_under_the_same_encoder_train_again(run: Path):
    described = json.loads((run / "ranker-frozen-text" / "ranker.json").read_text())
    other = np.random.default_rng(3).normal(size=described["text_dimension"]).astype(np.float32)
    with StoreWriter.open(run / "store") as writer:
        writer.put("id-5", b"{}", EmbeddedText.of(described["fingerprint"], "edited", other))
    assert distil(run, *CHANGED)[1]


def test_a_damaged_ranker_is_trained_again(run: Path):
    path = run / "ranker-frozen-text" / "ranker.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    assert distil(run, *CHANGED)[1]
