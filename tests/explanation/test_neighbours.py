"""Neighbours by each space, and what lists share."""

from __future__ import annotations

import numpy as np
from small_ranker import ITEMS, small_ranker

from llmgr_core.explanation.item_search import nearest_ids, with_words
from llmgr_core.explanation.neighbours import Neighbours, Space, following, fused_space, overlaps, share_alike


def test_the_nearest_have_the_largest_cosines_and_are_others_with_a_vector() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 5)) * rng.uniform(0.1, 9, size=(30, 1))
    known = np.ones(30, dtype=np.bool_)
    known[[4, 9]] = False
    found = Space(vectors, known).nearest(7, 6)
    cosines = [v @ vectors[7] / np.linalg.norm(v) / np.linalg.norm(vectors[7]) for v in vectors]
    expected = sorted((n for n in range(30) if n not in (4, 7, 9)), key=lambda n: -cosines[n])[:6]
    assert found.items.tolist() == expected
    np.testing.assert_allclose(found.similarities, [cosines[n] for n in expected], atol=1e-6)
    assert Space(vectors, known).nearest(4, 6) is None
    assert len(Space(vectors, known).nearest(7, 100)) == 27


def test_equally_near_ones_come_by_index() -> None:
    found = Space(np.array([[1.0, 0], [0, 1], [2, 0], [3, 0]]), np.ones(4, dtype=np.bool_)).nearest(0, 3)
    assert found.items.tolist() == [2, 3, 1]


def test_centring_takes_out_what_all_share() -> None:
    vectors = np.array([[10.0, 1, 0], [10, 0.9, 0.1], [10, -1, 0], [0, 0, 0]])
    known = np.array([True, True, True, False])
    plain, centred = Space(vectors, known).nearest(0, 2), Space.centred(vectors, known).nearest(0, 2)
    assert plain.items.tolist() == centred.items.tolist() == [1, 2]
    assert plain.similarities[1] > 0.9
    assert centred.similarities[1] < 0
    assert Space.centred(vectors, known).nearest(3, 2) is None


def test_the_fused_space_leaves_out_what_may_not_be_ranked() -> None:
    ranker = small_ranker()
    ranker.runtime.remove("id-10")
    found = fused_space(ranker.snapshot)
    assert np.flatnonzero(~found.known).tolist() == [4, 10]
    assert 10 not in found.nearest(7, ITEMS).items


def test_following_is_the_strongest_of_what_a_click_leads_to() -> None:
    ranker = small_ranker()
    items, strengths = ranker.snapshot.transitions.lookup(np.array([9]))
    found = following(ranker.snapshot, 9, 4)
    assert 9 not in found.items
    others = items != 9
    np.testing.assert_array_equal(found.similarities, np.sort(strengths[others])[::-1][:4])
    # An item without training clicks borrows its transitions.
    assert following(ranker.snapshot, 3, 4) is not None
    assert following(ranker.snapshot, 4, 4) is None


def test_overlaps_and_shares() -> None:
    def listed(*items: int) -> Neighbours:
        return Neighbours(np.array(items, dtype=np.int64), np.zeros(len(items), dtype=np.float32))

    assert overlaps({"a": listed(1, 2, 3), "b": listed(3, 2, 9), "c": None, "d": listed(7)}) == {
        ("a", "b"): 2,
        ("a", "d"): 0,
        ("b", "d"): 0,
    }
    codes = np.array([0, 0, 1, -1])
    assert share_alike(np.array([1, 2, 3, 8]), codes, 0) == 0.25
    assert share_alike(np.array([1]), codes, 3) is None
    assert share_alike(np.array([1]), codes, 8) is None


def test_ids_that_were_meant() -> None:
    ids = [f"B{number:06d}" for number in range(5000)]
    assert nearest_ids("b001234 ", ids)[0] == "B001234"
    assert "B004321" in nearest_ids("B0043210", ids)
    assert nearest_ids("zzz", ["abc"]) == []
    titles = ["Flat Iron", None, "Steam iron", "A FLAT plate of iron"]
    assert with_words("flat IRON", titles) == [0, 3]
    assert with_words(" ", titles) == []
