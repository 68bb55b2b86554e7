"""Rows of an experiment against their references, example by example."""

from __future__ import annotations

import numpy as np
import pytest

from llmgr_core.evaluation import METRICS, PairedBootstrap, Ranks, per_example_metrics
from trainer.experiments.outcome import UNTRAINED, RowRanks, compare_rows


def ranks(name: str, seed: int, shift: float = 0.0) -> Ranks:
    drawn = (np.random.default_rng(seed).integers(1, 40, size=50) + shift).astype(np.float32)
    return Ranks(name, drawn, drawn + 1)


def test_rows_are_compared_on_the_seeds_that_both_have() -> None:
    rows = [
        RowRanks("base", "", {1: ranks("base", 1), 2: ranks("base", 2)}),
        RowRanks("better", "base", {2: ranks("better", 2, -0.5)}),
        RowRanks("alone", "base", {3: ranks("alone", 3)}),
        RowRanks("floor", "base", {UNTRAINED: ranks("floor", 4)}),
    ]
    found = compare_rows(rows, np.full(50, 7), PairedBootstrap(resamples=100), "base")
    assert found["references"] == {"better": "base", "floor": "base"}
    paired = per_example_metrics(rows[1].by_seed[2].masked) - per_example_metrics(rows[0].by_seed[2].masked)
    shown = found["differences"]["better"]["masked"]["all"]["NDCG@20"]["mean"]
    assert shown == pytest.approx(paired[:, METRICS.index("NDCG@20")].mean())
    assert found["scorers"]["base"]["seeds"] == 2
    assert set(found["spread"]) == {"base"}
    assert set(found["by_seed"]) == {"base", "better", "alone"}


def test_a_row_is_compared_with_further_rows_beside_its_reference() -> None:
    base, floor = RowRanks("base", "", {1: ranks("base", 1)}), RowRanks("floor", "", {UNTRAINED: ranks("floor", 4)})
    other = RowRanks("other", "base", {2: ranks("other", 3)})
    better = RowRanks("better", "base", {1: ranks("better", 2, -0.5)}, also=("floor", "other", "gone"))
    found = compare_rows([base, floor, other, better], np.full(50, 7), PairedBootstrap(resamples=100), "base")
    assert found["references"] == {"better": "base"}
    assert list(found["also"]) == ["better"]
    assert list(found["also"]["better"]) == ["floor"], "no seed in common with one, and no ranks of another"
    paired = per_example_metrics(better.by_seed[1].masked) - per_example_metrics(floor.by_seed[UNTRAINED].masked)
    shown = found["also"]["better"]["floor"]["masked"]["5-10"]["NDCG@20"]
    assert shown["mean"] == pytest.approx(paired[:, METRICS.index("NDCG@20")].mean())
    assert shown["low"] < shown["mean"] < shown["high"]


def test_seed_0_is_a_seed_like_any_other() -> None:
    rows = [RowRanks("base", "", {0: ranks("base", 1), 1: ranks("base", 2)}), RowRanks("zero", "base", {0: ranks("zero", 3)})]
    found = compare_rows(rows, np.full(50, 7), PairedBootstrap(resamples=100), "base")
    paired = per_example_metrics(rows[1].by_seed[0].masked) - per_example_metrics(rows[0].by_seed[0].masked)
    shown = found["differences"]["zero"]["masked"]["all"]["NDCG@20"]["mean"]
    assert shown == pytest.approx(paired[:, METRICS.index("NDCG@20")].mean())
    assert set(found["by_seed"]) == {"base", "zero"}
