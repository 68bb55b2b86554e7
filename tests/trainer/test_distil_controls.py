"""Controls of the ranker: each takes away what it says, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.command_line.main import llmgr
from llmgr_core.errors import ArtefactError, SettingsError
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings import Settings, load_settings
from llmgr_core.settings.controls import ControlSettings
from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.encoder import EncoderSettings
from trainer.commands.distil import shaping_settings
from trainer.distil.controls import controlled_text, shuffled_clicks
from trainer.distil.student import Student, TextVectors

ENCODER = EncoderSettings(name="srgnn", dimension=8)


@pytest.fixture
def text() -> TextVectors:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(40, 6)) * rng.uniform(1, 3, size=(40, 1))).astype(np.float16)
    present = np.arange(40) % 5 != 0
    vectors[~present] = 0
    return TextVectors(vectors, present, "f" * 64)


def test_without_controls_a_ranker_is_the_same_step_as_before_there_were_any() -> None:
    assert "controls" not in shaping_settings(Settings(), "fused")["distil"]
    spoiled = load_settings(None, ["distil.controls.text_vectors=permuted"])
    assert shaping_settings(spoiled, "fused")["distil"]["controls"]["text_vectors"] == "permuted"


def test_permuted_vectors_are_the_same_vectors_on_other_items(text: TextVectors) -> None:
    spoiled = controlled_text(text, "permuted")
    there = text.present
    assert sorted(map(tuple, spoiled.vectors[there].tolist())) == sorted(map(tuple, text.vectors[there].tolist()))
    assert (spoiled.vectors[there] != text.vectors[there]).any(axis=1).mean() > 0.8
    assert not spoiled.vectors[~there].any()
    assert np.array_equal(controlled_text(text, "permuted").vectors, spoiled.vectors)


def test_random_vectors_keep_each_items_length_and_nothing_of_its_direction(text: TextVectors) -> None:
    spoiled = controlled_text(text, "random")
    own, drawn = (one.vectors[text.present].astype(np.float64) for one in (text, spoiled))
    lengths = np.linalg.norm(own, axis=1)
    assert np.allclose(np.linalg.norm(drawn, axis=1), lengths, rtol=1e-2)
    cosines = (own * drawn).sum(axis=1) / lengths**2
    assert abs(cosines.mean()) < 0.3
    assert controlled_text(text, "own") is text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=7), min_size=1, max_size=8))
def test_shuffling_keeps_the_clicks_and_the_target_of_every_example(sessions: list[list[int]]) -> None:
    examples = Examples.every_prefix(Sessions.from_lists(sessions))
    shuffled = shuffled_clicks(examples)
    assert np.array_equal(shuffled.targets, examples.targets)
    for number in range(len(examples)):
        assert sorted(shuffled.prefix(number).tolist()) == sorted(examples.prefix(number).tolist())


def test_shuffling_does_change_orders() -> None:
    examples = Examples.last_click(Sessions.from_lists([list(range(12))] * 20))
    shuffled = shuffled_clicks(examples)
    assert len({tuple(shuffled.prefix(number).tolist()) for number in range(20)}) > 15


def test_a_prefix_has_the_same_order_in_every_batch() -> None:
    examples = Examples.every_prefix(Sessions.from_lists([list(range(12))] * 20))
    whole = shuffled_clicks(examples)
    for size in (1, 7, 64):
        for start in range(0, len(examples), size):
            batch = shuffled_clicks(examples.select(slice(start, start + size)))
            for number in range(len(batch)):
                assert batch.prefix(number).tolist() == whole.prefix(start + number).tolist()
    nobody = examples.select(slice(0, 0))
    assert len(shuffled_clicks(nobody)) == 0


def test_without_ids_rows_are_made_of_text_alone(text: TextVectors) -> None:
    options = DistilSettings(controls=ControlSettings(ids=False), text_rank=4)
    torch.manual_seed(0)
    student = Student(np.ones(40, dtype=np.bool_), ENCODER, options, text).eval()
    before = student.rows().detach().clone()
    student.online.id_table.data.add_(1.0)
    assert torch.equal(student.rows(), before)
    assert student.rankable.tolist() == text.present.tolist()
    assert len(student.trained) == 40, "the softmax runs over the clicked items as ever"


OPTIONS = ["--set", "threads=1", "--set", "encoder.dimension=8", "--set", "distil.encoder.dimension=8"]
OPTIONS += ["--set", "pretrain.epochs=1", "--set", "distil.epochs=1", "--variant", "id-only"]


def test_a_control_is_trained_and_ranked_but_not_exported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    items = [{"item_id": f"id-{n}", "title": f"thing {n}"} for n in range(12)]
    rows = [
        {"session_id": str(n), "items": [f"id-{(s + k) % 12}" for k in range(6)]} for n, s in enumerate(rng.integers(0, 12, 60))
    ]
    (data / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    (data / "sessions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"

    def step(name: str, *options: str) -> None:
        result = CliRunner().invoke(llmgr, [name, "--run", str(run), "--json", *options], standalone_mode=False)
        if result.exception is not None:
            raise result.exception

    step("prepare", "--set", f"data.source={data}")
    step("pretrain", *OPTIONS[:-2])
    step("distil", *OPTIONS, "--set", "distil.controls.history=shuffled")
    step("evaluate", "--set", "threads=1")
    with pytest.raises(ArtefactError, match=r"control of an experiment .*'history': 'shuffled'"):
        step("export", "--variant", "id-only")
    with pytest.raises(SettingsError, match="nothing to rank by"):
        step("distil", *OPTIONS, "--set", "distil.controls.ids=false")
