"""What one request may count on: precedence, masking, probabilities, fallback."""

from __future__ import annotations

import numpy as np
import pytest

from llmgr_core.ranker import RankerRuntime, ScoringSettings

ITEMS = 60


def ids(count: int) -> list[str]:
    return [f"item-{number}" for number in range(count)]


def at(*indices: int) -> np.ndarray:
    return np.array(indices, dtype=np.int64)


@pytest.fixture
def runtime(make_stored) -> RankerRuntime:
    stored = make_stored(ITEMS)
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 12)).astype(np.float16)
    return RankerRuntime(stored.parts("v1", ids(ITEMS)), vectors)


def scores_by_hand(runtime: RankerRuntime, clicks: np.ndarray) -> np.ndarray:
    """Every item's calibrated score, straight from the formula."""
    parts = runtime.parts
    rows = runtime.snapshot.rows.vectors(np.arange(ITEMS)).astype(np.float64)
    nodes, click_nodes = np.unique_inverse(clicks[-parts.max_clicks :])
    z = parts.session_vector(rows[nodes].astype(np.float32), click_nodes).astype(np.float64)
    cosines = rows @ z / np.linalg.norm(rows, axis=1) / np.linalg.norm(z)
    term = np.zeros(ITEMS)
    items, strengths = parts.transitions.lookup(clicks)
    term[items] = parts.scoring.transition_weight * np.log1p(parts.scoring.transition_slope * strengths)
    return (parts.logit_scale * cosines + term) / parts.scoring.temperature


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
def test_scores_and_probabilities_follow_the_formula(runtime: RankerRuntime, k: int) -> None:
    clicks = at(3, 9, 3, 27)
    expected = scores_by_hand(runtime, clicks)
    expected[clicks] = -np.inf
    order = np.argsort(-expected, kind="stable")[: min(k, ITEMS - 3)]
    ranking = runtime.rank(clicks, k)
    assert ranking.indices.tolist() == order.tolist()
    np.testing.assert_allclose(ranking.scores, expected[order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ranking.probabilities, softmax(expected)[order], rtol=1e-3)
    assert not ranking.fallback


def test_every_probability_adds_up_to_one(runtime: RankerRuntime) -> None:
    assert float(runtime.rank(at(1, 2), ITEMS).probabilities.sum()) == pytest.approx(1.0, abs=1e-5)
    with_candidates = runtime.rank(at(1, 2), ITEMS, candidates=at(7, 8, 9, 10))
    assert float(with_candidates.probabilities.sum()) == pytest.approx(1.0, abs=1e-5)


def test_exclusion_goes_before_everything(runtime: RankerRuntime) -> None:
    ranking = runtime.rank(at(1, 2), ITEMS, exclude=at(2, 7), candidates=at(2, 7, 8), include_seen=True)
    assert ranking.indices.tolist() == [8]
    assert ranking.probabilities.tolist() == pytest.approx([1.0])


def test_seen_goes_before_candidates(runtime: RankerRuntime) -> None:
    assert set(runtime.rank(at(1, 2), ITEMS, candidates=at(1, 7)).indices.tolist()) == {7}
    assert set(runtime.rank(at(1, 2), ITEMS, candidates=at(1, 7), include_seen=True).indices.tolist()) == {1, 7}


def test_candidates_get_the_scores_they_have_in_the_whole_ranking(runtime: RankerRuntime) -> None:
    clicks, candidates = at(3, 9, 27), at(40, 11, 12, 40)
    ranking = runtime.rank(clicks, ITEMS)
    whole = dict(zip(ranking.indices.tolist(), ranking.scores.tolist(), strict=True))
    chosen = runtime.rank(clicks, ITEMS, candidates=candidates)
    assert len(chosen) == 3
    for index, score in zip(chosen.indices.tolist(), chosen.scores.tolist(), strict=True):
        assert score == pytest.approx(whole[index], abs=1e-4)
    np.testing.assert_allclose(chosen.probabilities, softmax(chosen.scores.astype(np.float64)), rtol=1e-4)


def test_default_for_seen_items_is_the_rankers_and_the_request_goes_first(make_stored) -> None:
    for default in (False, True):
        stored = make_stored(ITEMS, scoring=ScoringSettings(include_seen=default))
        runtime = RankerRuntime(stored.parts("v1", ids(ITEMS)))
        clicks = at(4, 5)
        assert (4 in runtime.rank(clicks, ITEMS).indices) == default
        assert 4 in runtime.rank(clicks, ITEMS, include_seen=True).indices
        assert 4 not in runtime.rank(clicks, ITEMS, include_seen=False).indices


def test_clicks_before_the_encoded_ones_count_as_seen(runtime: RankerRuntime) -> None:
    long = np.arange(30, dtype=np.int64)
    ranking = runtime.rank(long, ITEMS)
    assert not set(ranking.indices.tolist()) & set(range(30))
    expected = scores_by_hand(runtime, long)
    np.testing.assert_allclose(ranking.scores, np.sort(expected[30:])[::-1], rtol=1e-4, atol=1e-4)


def test_unknown_clicks_are_skipped(runtime: RankerRuntime) -> None:
    snapshot = runtime.snapshot
    clicks = snapshot.indices(["item-3", "never heard of", "item-9"])
    assert clicks.tolist() == [3, -1, 9]
    with_unknown, without = snapshot.rank(clicks, 10), snapshot.rank(at(3, 9), 10)
    np.testing.assert_array_equal(with_unknown.indices, without.indices)
    np.testing.assert_array_equal(with_unknown.scores, without.scores)


@pytest.mark.parametrize("clicks", [at(), at(-1, -1)])
def test_no_known_click_gives_popularity_and_says_so(runtime: RankerRuntime, clicks: np.ndarray) -> None:
    popularity = runtime.parts.popularity
    ranking = runtime.rank(clicks, ITEMS, exclude=at(int(popularity.argmax()), -1))
    assert ranking.fallback
    order = [item for item in np.argsort(-popularity, kind="stable").tolist() if item != popularity.argmax()]
    assert ranking.indices.tolist() == order
    shares = popularity[order] + 1
    np.testing.assert_allclose(ranking.probabilities, shares / shares.sum(), rtol=1e-4)
    among = runtime.rank(clicks, 2, candidates=at(5, 6, 7, -1))
    assert among.fallback
    assert set(among.indices.tolist()) <= {5, 6, 7}


def test_unknown_candidates_only_give_an_empty_ranking(runtime: RankerRuntime) -> None:
    assert len(runtime.rank(at(1), 20, candidates=at(-1, -1))) == 0
    assert len(runtime.rank(at(1), 20, candidates=at())) == 0


def test_everything_excluded_gives_an_empty_ranking(runtime: RankerRuntime) -> None:
    assert len(runtime.rank(at(1), 20, exclude=np.arange(ITEMS))) == 0


def test_equal_items_come_in_the_order_of_their_index(make_stored) -> None:
    stored = make_stored(ITEMS, text_dimension=0, scoring=ScoringSettings())
    stored.tensors["id_table"] = stored.tensors["id_table"].copy()
    stored.tensors["id_table"][[50, 20, 33]] = stored.tensors["id_table"][41]
    runtime = RankerRuntime(stored.parts("v1", ids(ITEMS)))
    order = [index for index in runtime.rank(at(1, 2), ITEMS).indices.tolist() if index in (20, 33, 41, 50)]
    assert order == [20, 33, 41, 50]


def test_items_with_neither_id_nor_text_are_never_ranked(make_stored) -> None:
    stored = make_stored(ITEMS, without_id=(10, 11))
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 12)).astype(np.float16)
    present = np.ones(ITEMS, dtype=np.bool_)
    present[[10, 20]] = False
    runtime = RankerRuntime(stored.parts("v1", ids(ITEMS)), vectors, present)
    ranked = runtime.rank(at(1, 2), ITEMS).indices.tolist()
    assert 10 not in ranked
    assert {11, 20} <= set(ranked)
    # As a click it says nothing, but it is known and seen.
    assert runtime.rank(at(10), ITEMS).fallback
    np.testing.assert_array_equal(runtime.rank(at(1, 10, 2), 5).indices, runtime.rank(at(1, 2), 5).indices)
