"""Candidates, schedule and DeepSpeed's configuration."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from llmgr_core.errors import SettingsError
from trainer.commands.tune import command
from trainer.tune.candidates import HardCandidates
from trainer.tune.schedule import batch_order, rate_factor
from trainer.tune.zero import checked_config

BRANDS = np.repeat(np.arange(10, dtype=np.int32), 10)
CATEGORIES = np.tile(np.arange(10, dtype=np.int32), 10)


def hard(pool: np.ndarray) -> HardCandidates:
    rng = np.random.default_rng(0)
    return HardCandidates(pool, BRANDS, CATEGORIES, rng.normal(size=(len(pool), 16)).astype(np.float32))


@given(seed=st.integers(0, 500), count=st.integers(2, 12))
def test_candidates_hold_the_item_once_and_no_other_twice(seed: int, count: int) -> None:
    pool = np.flatnonzero(np.arange(100) % 7 != 0)
    rng = np.random.default_rng(seed)
    items = rng.choice(pool, size=6)
    drawn = hard(pool).draw(items, count, rng)
    assert drawn.shape == (6, count)
    assert ((drawn == items[:, None]).sum(axis=1) == 1).all()
    assert all(len(set(row)) == count for row in drawn.tolist())
    assert np.isin(drawn, pool).all()


def test_candidates_are_hard() -> None:
    pool = np.arange(100)
    items = np.arange(100)
    drawn = hard(pool).draw(items, 9, np.random.default_rng(0))
    others = drawn != items[:, None]
    same_brand = ((BRANDS[drawn] == BRANDS[items][:, None]) & others).sum(axis=1)
    same_category = ((CATEGORIES[drawn] == CATEGORIES[items][:, None]) & others).sum(axis=1)
    assert same_brand.min() >= 2
    assert same_category.min() >= 2


def test_the_right_answer_stands_anywhere() -> None:
    items = np.zeros(300, dtype=np.int64)
    places = (hard(np.arange(100)).draw(items, 5, np.random.default_rng(0)) == 0).argmax(axis=1)
    assert np.bincount(places, minlength=5).min() > 30


def test_too_few_items_to_choose_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="10 candidates cannot be drawn from 4"):
        hard(np.arange(4)).draw(np.array([1]), 10, np.random.default_rng(0))


@given(count=st.integers(1, 400), batch_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_an_epoch_takes_every_example_once(count: int, batch_size: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 100, size=count)
    batches = batch_order(lengths, batch_size, seed, 1, 0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert max(len(batch) for batch in batches) <= batch_size


def test_batches_hold_texts_of_like_length_and_epochs_differ() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=1600)
    first, second = (batch_order(lengths, 16, 0, 1, epoch) for epoch in (0, 1))
    padded = sum(lengths[batch].max() * len(batch) for batch in first)
    assert padded < 1.1 * lengths.sum()
    assert any(set(one.tolist()) != set(other.tolist()) for one, other in zip(first, second, strict=True))


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [rate_factor(step, 100, 0.1) for step in range(100)]
    assert rates[0] < 0.2
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] < 0.01
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))


def test_the_shipped_deepspeed_configuration_is_taken() -> None:
    path = Path(__file__).parents[2] / "configs" / "deepspeed-zero2.json"
    assert checked_config(json.loads(path.read_text()))["zero_optimization"]["stage"] == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"train_batch_size": 4}, "train_batch_size"),
        ({"bf16": {"enabled": True}}, "bf16"),
        ({"zero_optimization": {"stage": 3}}, "stage 3"),
        ([1], "no JSON object"),
        ({"bf16": True}, "sets bf16 to True, which is no table"),
        ({"zero_optimization": 2}, "sets zero_optimization to 2, which is no table"),
    ],
)
def test_a_deepspeed_configuration_that_would_be_ignored_is_refused(config: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        checked_config(config)


def test_processes_without_deepspeed_are_refused(tmp_path: Path) -> None:
    answer = CliRunner().invoke(command, ["--run", str(tmp_path), "--processes", "4"])
    assert answer.exit_code == 2
    assert "--processes is of --deepspeed" in answer.output
