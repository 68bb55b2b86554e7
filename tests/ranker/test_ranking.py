"""The best k of a score vector, with probabilities over all of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.ranker.ranking import PIECE, best_of


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 1200), st.integers(1, 60), st.floats(0, 1), st.integers(0, 10**6))
def test_equals_a_full_sort_with_ties_by_index(size: int, k: int, levels: int, hidden: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, size).astype(np.float32)
    scores[rng.random(size) < hidden] = -np.inf
    kept = scores.copy()
    places, best, probabilities = best_of(scores, k)
    order = [place for place in np.argsort(-scores, kind="stable") if np.isfinite(scores[place])][:k]
    assert places.tolist() == order
    np.testing.assert_array_equal(scores, kept)
    np.testing.assert_array_equal(best, scores[order])
    if order:
        shifted = np.exp(scores.astype(np.float64) - scores.max())
        np.testing.assert_allclose(probabilities, (shifted / shifted.sum())[order], rtol=2e-5)


def test_probabilities_do_not_depend_on_k() -> None:
    scores = np.random.default_rng(0).normal(size=5000).astype(np.float32) * 4
    (*_, few), (*_, many) = best_of(scores, 3), best_of(scores, 5000)
    np.testing.assert_array_equal(few, many[:3])
    assert abs(float(many.sum()) - 1.0) < 1e-4


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
def test_probabilities_are_over_every_piece_of_a_large_table(size: int) -> None:
    scores = np.random.default_rng(size).normal(size=size).astype(np.float32)
    kept = scores.copy()
    _, best, probabilities = best_of(scores, 20)
    np.testing.assert_array_equal(scores, kept)
    np.testing.assert_allclose(
        probabilities, np.exp(best.astype(np.float64)) / np.exp(scores.astype(np.float64)).sum(), rtol=1e-5
    )


def test_nothing_rankable_is_an_empty_ranking() -> None:
    for size in (0, 7, 3000):
        places, scores, probabilities = best_of(np.full(size, -np.inf, dtype=np.float32), 20)
        assert len(places) == len(scores) == len(probabilities) == 0


def test_far_apart_scores_neither_overflow_nor_vanish() -> None:
    places, _, probabilities = best_of(np.array([3e4, -3e4, 2.9999e4], dtype=np.float32), 3)
    assert places.tolist() == [0, 2, 1]
    assert np.isfinite(probabilities).all()
    assert probabilities[0] > 0.7
