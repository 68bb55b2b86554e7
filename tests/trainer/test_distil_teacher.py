"""The teacher's rankings are computed once, block by block, and found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples, Sessions
from trainer.distil import teacher_rankings as module
from trainer.distil.teacher_rankings import TeacherRankings, choose_examples, teacher_rankings

ITEMS = 40


class CountingTeacher:
    """Prefers items close to the last click."""

    name = "teacher"

    def __init__(self, dies_after: int | None = None) -> None:
        self.scored = 0
        self._dies_after = dies_after

    def scores(self, examples: Examples) -> torch.Tensor:
        if self._dies_after is not None and self.scored >= self._dies_after:
            raise KeyboardInterrupt
        self.scored += len(examples)
        last = torch.from_numpy(examples.items[examples.ends - 1].astype(np.int64))
        return -(torch.arange(ITEMS) - last[:, None]).abs().float()


@pytest.fixture
def examples() -> Examples:
    rng = np.random.default_rng(0)
    return Examples.every_prefix(Sessions.from_lists([rng.integers(0, ITEMS, size=6).tolist() for _ in range(40)]))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 20)
    monkeypatch.setattr(module, "SCORED_AT_ONCE", 10)


def rank(teacher: CountingTeacher, examples: Examples, cache: Path, key: str = "a", top: int = 5) -> TeacherRankings:
    chosen = choose_examples(len(examples), 70, seed=1)
    return teacher_rankings(
        teacher, examples, chosen, top=top, cache=cache, key={"tuned": key}, reporter=Reporter(as_json=True)
    )


def test_holds_the_teachers_best_items_and_its_rank_of_the_target(examples: Examples, tmp_path: Path) -> None:
    rankings = rank(CountingTeacher(), examples, tmp_path)
    assert len(rankings) == 70
    assert rankings.items.shape == rankings.logits.shape == (70, 5)
    assert rankings.logits.dtype == np.float16
    for number in range(70):
        example = examples.select(rankings.examples[number : number + 1])
        scores = CountingTeacher().scores(example)[0]
        assert scores[rankings.items[number].astype(np.int64)].tolist() == scores.topk(5).values.tolist()
        np.testing.assert_allclose(rankings.logits[number], scores.topk(5).values - scores.max(), atol=1e-2)
        assert rankings.target_ranks[number] == 1 + int((scores > scores[int(example.targets[0])]).sum())
    assert 0.0 < rankings.ndcg20 <= 1.0


def test_second_run_asks_the_teacher_nothing(examples: Examples, tmp_path: Path) -> None:
    first = rank(CountingTeacher(), examples, tmp_path)
    teacher = CountingTeacher()
    second = rank(teacher, examples, tmp_path)
    assert teacher.scored == 0
    np.testing.assert_array_equal(first.items, second.items)
    np.testing.assert_array_equal(first.target_ranks, second.target_ranks)


def test_cut_off_run_goes_on_at_its_block(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        rank(CountingTeacher(dies_after=50), examples, tmp_path)
    teacher = CountingTeacher()
    rank(teacher, examples, tmp_path)
    assert teacher.scored == 30


@pytest.mark.parametrize("change", [{"key": "another model"}, {"top": 6}])
def test_other_model_or_depth_does_not_find_the_cache(examples: Examples, tmp_path: Path, change: dict) -> None:
    rank(CountingTeacher(), examples, tmp_path)
    teacher = CountingTeacher()
    rank(teacher, examples, tmp_path, **change)
    assert teacher.scored == 70


def test_damaged_block_is_computed_again(examples: Examples, tmp_path: Path) -> None:
    rank(CountingTeacher(), examples, tmp_path)
    block = sorted(tmp_path.glob("*.safetensors"))[0]
    block.write_bytes(block.read_bytes()[:50])
    teacher = CountingTeacher()
    rank(teacher, examples, tmp_path)
    assert 0 < teacher.scored <= 20


def test_nan_from_the_teacher_is_an_error_and_is_not_kept(examples: Examples, tmp_path: Path) -> None:
    class Broken(CountingTeacher):
        def scores(self, examples: Examples) -> torch.Tensor:
            return torch.full((len(examples), ITEMS), torch.nan)

    with pytest.raises(InputError, match="the teacher gave NaN"):
        rank(Broken(), examples, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_chosen_prefixes_are_distinct_ordered_and_repeatable() -> None:
    chosen = choose_examples(1000, 100, seed=4)
    assert len(np.unique(chosen)) == 100
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, choose_examples(1000, 100, seed=4))
    assert len(choose_examples(1000, 0, seed=4)) == 1000
