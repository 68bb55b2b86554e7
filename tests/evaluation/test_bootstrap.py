"""Intervals: they hold the truth as often as they promise, in every group."""

from __future__ import annotations

import numpy as np
import pytest

from llmgr_core.evaluation import BUCKETS, PairedBootstrap, bucket_of, expected_calibration_error


def everything(n: int) -> np.ndarray:
    return np.ones((n, 1), dtype=bool)


def test_equal_scorers_differ_by_nothing():
    mean, low, high = PairedBootstrap(200).intervals(np.zeros((50, 2)), everything(50))
    assert mean.tolist() == low.tolist() == high.tolist() == [[0.0, 0.0]]


def test_the_interval_is_that_of_a_plain_loop_over_the_same_draws():
    generator = np.random.default_rng(0)
    differences = generator.normal(size=(40, 2))
    groups = np.stack([np.ones(40, dtype=bool), np.arange(40) < 15], axis=1)
    mean, low, high = PairedBootstrap(100, 0.9, seed=5).intervals(differences, groups)
    draws = np.random.default_rng(5).integers(0, 40, size=(100, 40))
    for column in range(2):
        for group in range(2):
            values = [differences[draw[groups[draw, group]], column].mean() for draw in draws]
            assert [low[group, column], high[group, column]] == pytest.approx(np.quantile(values, [0.05, 0.95]).tolist())
            assert mean[group, column] == pytest.approx(differences[groups[:, group], column].mean())


def test_intervals_hold_the_true_difference_as_often_as_promised():
    generator = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        _, low, high = PairedBootstrap(200, 0.9, seed=trial).intervals(0.1 + generator.normal(size=(100, 1)), everything(100))
        held += bool(low[0, 0] <= 0.1 <= high[0, 0])
    assert 0.83 <= held / 200 <= 0.96


def test_a_group_without_examples_has_no_interval():
    mean, low, high = PairedBootstrap(100).intervals(np.ones((4, 1)), np.array([[True, False]] * 4))
    assert mean[0, 0] == low[0, 0] == high[0, 0] == 1
    assert np.isnan([mean[1, 0], low[1, 0], high[1, 0]]).all()


def test_a_group_of_one_example_survives_resamples_that_miss_it():
    groups = np.zeros((30, 1), dtype=bool)
    groups[3] = True
    mean, low, high = PairedBootstrap(200).intervals(np.full((30, 1), 0.25), groups)
    assert mean[0, 0] == low[0, 0] == high[0, 0] == 0.25


def test_buckets_begin_where_their_names_say():
    counts = np.array([0, 1, 4, 5, 10, 11, 49, 50, 10_000])
    assert [BUCKETS[place] for place in bucket_of(counts)] == [
        "0",
        "1-4",
        "1-4",
        "5-10",
        "5-10",
        "11-49",
        "11-49",
        "50+",
        "50+",
    ]


def test_calibration_error_of_honest_and_of_boastful_probabilities():
    generator = np.random.default_rng(0)
    probabilities = generator.uniform(size=20_000)
    happened = generator.uniform(size=20_000) < probabilities
    assert expected_calibration_error(probabilities, happened) < 0.02
    assert expected_calibration_error(np.full(100, 0.9), np.zeros(100, dtype=bool)) == pytest.approx(0.9)
    assert expected_calibration_error(np.zeros(0), np.zeros(0, dtype=bool)) == 0.0
    with pytest.raises(ValueError, match="outside"):
        expected_calibration_error(np.array([1.5]), np.array([True]))
