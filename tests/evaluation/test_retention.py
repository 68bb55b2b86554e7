"""Retention: the share of the teacher's gain that a student keeps, and when there is none to keep."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from llmgr_core.evaluation import PairedBootstrap, Ranks
from llmgr_core.evaluation.comparison import compare
from llmgr_core.evaluation.page import page
from llmgr_core.evaluation.retention import retention
from llmgr_core.evaluation.tables import tables

MISS = 1000.0


def ranked(name: str, hits: list[bool] | np.ndarray) -> list[Ranks]:
    ranks = np.where(hits, 1.0, MISS).astype(np.float32)
    return [Ranks(name, ranks, ranks)]


def first_hit(name: str, hits: int, of: int) -> list[Ranks]:
    return ranked(name, np.arange(of) < hits)


def three(backbone: int, student: int, teacher: int, of: int = 100) -> dict[str, list[Ranks]]:
    counted = {"backbone": backbone, "fused": student, "teacher": teacher}
    return {name: first_hit(name, hits, of) for name, hits in counted.items()}


def test_retention_is_the_ratio_worked_out_by_hand():
    # HR: backbone 20 %, student 50 %, teacher 60 %: (50 - 20) / (60 - 20)
    found = retention(three(20, 50, 60), np.full(100, 3), PairedBootstrap(500))
    assert found is not None
    for group in ("all", "1-4"):
        one = found["students"]["fused"]["masked"][group]["HR@20"]
        assert one["value"] == pytest.approx(0.75)
        assert 0.5 < one["low"] < 0.75 < one["high"] < 1.0
        assert found["teacher_gain"]["masked"][group]["HR@20"]["mean"] == pytest.approx(0.4)
    assert "50+" not in found["students"]["fused"]["masked"]


def test_buckets_have_ratios_of_their_own_and_their_interval_is_that_of_a_plain_loop():
    generator = np.random.default_rng(0)
    counts = np.where(np.arange(120) < 60, 2, 70)
    chances = {"backbone": 0.2, "fused": 0.5, "teacher": 0.7}
    ranks = {name: ranked(name, generator.random(120) < chance) for name, chance in chances.items()}
    found = retention(ranks, counts, PairedBootstrap(300, 0.9, seed=4))
    assert found is not None
    hits = {name: (one[0].masked == 1).astype(float) for name, one in ranks.items()}
    draws = np.random.default_rng(4).integers(0, 120, size=(300, 120))
    for group, count in (("1-4", 2), ("50+", 70)):
        inside = [draw[counts[draw] == count] for draw in draws]
        ratios = [
            (hits["fused"][draw] - hits["backbone"][draw]).mean() / (hits["teacher"][draw] - hits["backbone"][draw]).mean()
            for draw in inside
        ]
        one = found["students"]["fused"]["masked"][group]["HR@5"]
        expected = np.quantile(ratios, [0.05, 0.95], method="nearest")
        assert [one["low"], one["high"]] == pytest.approx(expected.tolist())


def test_a_student_may_lose_more_than_everything_or_keep_more_than_all():
    found = retention(three(30, 20, 70), np.full(100, 3), PairedBootstrap(200))
    assert found is not None
    assert found["students"]["fused"]["masked"]["all"]["HR@10"]["value"] == pytest.approx(-0.25)
    found = retention(three(30, 90, 70), np.full(100, 3), PairedBootstrap(200))
    assert found is not None
    assert found["students"]["fused"]["masked"]["all"]["HR@10"]["value"] == pytest.approx(1.5)


@pytest.mark.parametrize(("teacher", "reason"), [(21, "includes zero"), (20, "includes zero"), (2, "worse")])
def test_without_a_gain_of_the_teacher_the_ratio_is_undefined_and_says_why(teacher, reason):
    found = retention(three(20, 50, teacher), np.full(100, 3), PairedBootstrap(200))
    assert found is not None
    one = found["students"]["fused"]["masked"]["all"]["HR@20"]
    assert set(one) == {"undefined"}
    assert reason in one["undefined"]


def test_a_draw_without_a_gain_of_the_teacher_counts_as_beyond_every_number():
    # two gains in thirty: one draw in seven has none, so that its ratio is 0 / 0, or 1 / 0
    found = retention(three(0, 1, 2, of=30), np.full(30, 3), PairedBootstrap(2000, 0.6))
    assert found is not None
    one = found["students"]["fused"]["masked"]["all"]["HR@20"]
    assert [one["low"], one["value"], one["high"]] == pytest.approx([0.0, 0.5, 1.0])
    json.dumps(found, allow_nan=False)


def test_two_seeds_are_averaged_example_by_example():
    ranks = three(20, 50, 60)
    ranks["fused"] = [*first_hit("fused", 40, 100), *first_hit("fused", 60, 100)]
    found = retention(ranks, np.full(100, 3), PairedBootstrap(200))
    assert found is not None
    assert found["students"]["fused"]["masked"]["all"]["HR@20"]["value"] == pytest.approx(0.75)


@pytest.mark.parametrize("missing", ["teacher", "backbone", "fused"])
def test_without_one_of_the_three_there_is_nothing_to_say(missing):
    ranks = three(20, 50, 60)
    del ranks[missing]
    assert retention(ranks, np.full(100, 3), PairedBootstrap(100)) is None


def test_table_and_page_show_ratios_and_says_undefined():
    counts = np.where(np.arange(100) % 2 == 0, 3, 60)
    ranks = three(20, 50, 60)
    ranks["teacher"] = ranked("teacher", (np.arange(100) < 60) & (counts == 3) | (np.arange(100) < 20))
    bootstrap = PairedBootstrap(200)
    found = compare(ranks, counts, "backbone", bootstrap)
    found["retention"] = retention(ranks, counts, bootstrap)
    console = Console(record=True, width=200, file=io.StringIO())
    results = {"protocol": {"confidence": 0.95}, "splits": {"test-100": found}}
    for table in tables(results):
        console.print(table)
    for text in (console.export_text(clear=False), page(results, console, {}, "a run")):
        assert "retention" in text
        assert "75%" in text
        assert "undefined" in text
