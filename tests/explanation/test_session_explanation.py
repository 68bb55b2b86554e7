"""Parts add up to the score, and what a click does is what the ordinary ranker does without it."""

from __future__ import annotations

import numpy as np
import pytest
from small_ranker import ITEMS, small_ranker

from llmgr_core.errors import InputError
from llmgr_core.explanation.click_evidence import sessions_followed, sessions_together, transition_shares
from llmgr_core.explanation.score_parts import average_parts, row_parts, score_parts
from llmgr_core.explanation.session import explain_session
from llmgr_core.ranker import RowChange
from llmgr_core.settings.encoder import EncoderSettings

ENCODERS = ["srgnn", "gcsan", "gru4rec", "stamp", "narm", "sasrec", "bsarec"]
SESSIONS = {
    "one click": [7],
    "repeats": [7, 9, 7, 7, 12],
    "an item without training clicks": [3, 8],
    "an item without text": [5, 8, 9],
    "an item with neither": [4, 8, 9],
    "more clicks than the encoder reads": [11, 12, 13, 14, 15, 16, 17, 18, 19],
    "200 clicks": [(number * 7) % 40 + 6 for number in range(200)],
}


def array(*items: int) -> np.ndarray:
    return np.array(items, dtype=np.int64)


def everything(ranker):
    """All that may be ranked, explained."""
    return lambda clicks: explain_session(ranker.snapshot, ranker.attention, clicks, ITEMS)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("logits", ["cosine", "dot"])
def test_parts_add_up_to_the_score_that_is_ranked(name: str, logits: str) -> None:
    ranker = small_ranker(EncoderSettings(name=name, dimension=16, max_clicks=6, logits=logits))
    for clicks in SESSIONS.values():
        found = everything(ranker)(array(*clicks))
        np.testing.assert_allclose(found.parts.score, found.placement.scores, rtol=1e-5, atol=1e-5)
        ranking = ranker.snapshot.rank(array(*clicks), ITEMS)
        np.testing.assert_array_equal(found.items, ranking.indices)
        np.testing.assert_array_equal(found.placement.probabilities, ranking.probabilities)
        np.testing.assert_array_equal(found.placement.ranks, np.arange(len(ranking)) + 1)


def test_each_part_is_what_its_name_says() -> None:
    ranker = small_ranker()
    ids, texts = row_parts(ranker.snapshot, np.arange(ITEMS))
    stored = ranker.stored
    np.testing.assert_array_equal(ids[stored.has_id], stored.id_vectors[stored.has_id])
    assert not ids[~stored.has_id].any()
    expected = stored.transform.text_part(ranker.vectors)
    with_both = stored.has_id & ranker.present
    np.testing.assert_allclose(texts[with_both], expected[with_both], atol=1e-5)
    np.testing.assert_allclose(texts[3], 0.7 * expected[3], atol=1e-5)
    assert not texts[5].any()
    parts = score_parts(ranker.snapshot, array(7, 8), np.arange(ITEMS))
    assert not parts.id[[3, 4]].any()
    assert not parts.text[[4, 5]].any()


def test_a_ranker_without_text_has_no_text_part() -> None:
    ranker = small_ranker(text=False, without_text=())
    found = everything(ranker)(array(7, 9))
    assert not found.parts.text.any()
    np.testing.assert_allclose(found.parts.id + found.parts.transitions, found.placement.scores, atol=1e-5)


def test_an_item_whose_text_was_deleted_keeps_its_id_alone() -> None:
    ranker = small_ranker()
    ranker.runtime.upsert("id-9", None)
    ids, texts = row_parts(ranker.snapshot, array(9))
    np.testing.assert_allclose(ids[0], ranker.stored.id_vectors[9], atol=1e-6)
    np.testing.assert_allclose(texts[0], 0.0, atol=1e-6)


def test_an_inserted_item_is_all_text_and_borrows_its_transitions() -> None:
    ranker = small_ranker()
    ranker.runtime.apply([RowChange("new", ranker.vectors[9])])
    index = ranker.snapshot.index_of("new")
    found = explain_session(ranker.snapshot, ranker.attention, array(7, 8, index), 5, array(index, 3))
    number = int(np.flatnonzero(found.items == 3)[0])
    assert found.parts.id[number] == 0.0
    assert found.placement.ranks[found.items == index] == 0  # clicked, and seen items are not ranked
    np.testing.assert_allclose(found.parts.score[number], found.placement.scores[number], atol=1e-5)
    np.testing.assert_allclose(found.transition_shares[:, number].sum(), found.parts.transitions[number], atol=1e-5)


def test_the_average_item_is_the_mean_over_all_that_may_be_ranked() -> None:
    ranker = small_ranker()
    rankable = np.delete(np.arange(ITEMS), 4)
    every, average = score_parts(ranker.snapshot, array(7, 8), rankable), average_parts(ranker.snapshot, array(7, 8))
    for part in ("id", "text", "transitions", "score"):
        np.testing.assert_allclose(getattr(average, part), getattr(every, part).mean(keepdims=True), atol=1e-5)


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("include_seen", [False, True])
def test_occlusion_is_ranking_without_the_click(session: str, include_seen: bool) -> None:
    ranker = small_ranker(include_seen=include_seen)
    clicks = array(*SESSIONS[session])
    found = explain_session(ranker.snapshot, ranker.attention, clicks, 10)
    for number in range(len(clicks)) if len(clicks) < 20 else (0, 100, 150, 189, 190, 193, 194, 195, 199):
        hidden = None if include_seen else np.unique(clicks)
        ranking = ranker.snapshot.rank(np.delete(clicks, number), ITEMS, exclude=hidden)
        assert found.without.fallback[number] == ranking.fallback
        for column, item in enumerate(found.items):
            place = int(np.flatnonzero(ranking.indices == item)[0])
            assert found.without.ranks[number, column] == place + 1
            assert found.without.probabilities[number, column] == ranking.probabilities[place]
            if ranking.fallback:
                assert np.isnan(found.score_drops[number, column])
            else:
                expected = found.placement.scores[column] - ranking.scores[place]
                assert found.score_drops[number, column] == pytest.approx(expected, abs=1e-6)


def test_clicks_that_nothing_reads_change_nothing() -> None:
    ranker = small_ranker()
    clicks = array(*SESSIONS["200 clicks"])
    found = explain_session(ranker.snapshot, ranker.attention, clicks, 10)
    assert found.read.sum() == 6
    assert not found.score_drops[:190].any()
    assert found.score_drops[190:].any(axis=1).all()
    assert np.isnan(found.attention_shares[:194]).all()


def test_the_only_click_is_the_strongest_although_nothing_can_be_compared() -> None:
    ranker = small_ranker()
    found = explain_session(ranker.snapshot, ranker.attention, array(7), 3)
    assert found.without.fallback.tolist() == [True]
    assert found.strongest_click(0) == 0
    assert np.isnan(found.score_drops).all()


def test_the_strongest_click_is_the_one_whose_removal_costs_the_most() -> None:
    ranker = small_ranker()
    found = explain_session(ranker.snapshot, ranker.attention, array(7, 9, 12), 4)
    for number in range(4):
        strongest = found.strongest_click(number)
        drops, ranks = found.score_drops[:, number], found.without.ranks[:, number]
        if strongest is None:
            assert drops.max() <= 0 or ranks[drops.argmax()] <= found.placement.ranks[number]
        else:
            assert drops[strongest] == drops.max() > 0
            assert ranks[strongest] > found.placement.ranks[number]
    assert any(found.strongest_click(number) is not None for number in range(4))


def test_unknown_clicks_are_left_out_and_none_known_is_refused() -> None:
    ranker = small_ranker()
    with_unknown = explain_session(ranker.snapshot, ranker.attention, array(-1, 7, -1, 9), 5)
    np.testing.assert_array_equal(with_unknown.clicks, [7, 9])
    np.testing.assert_array_equal(with_unknown.items, ranker.snapshot.rank(array(7, 9), 5).indices)
    with pytest.raises(InputError, match="none of the clicked items is known"):
        explain_session(ranker.snapshot, ranker.attention, array(-1), 5)


def test_a_session_that_cannot_be_encoded_is_ranked_by_popularity() -> None:
    ranker = small_ranker()
    found = explain_session(ranker.snapshot, ranker.attention, array(4), 5)
    assert found.parts is None
    assert found.average is None
    assert found.attention.weights is None
    assert not found.transition_shares.any()
    np.testing.assert_array_equal(found.items, ranker.snapshot.rank(array(4), 5).indices)


@pytest.mark.parametrize("session", SESSIONS)
def test_transition_shares_add_up_to_the_part(session: str) -> None:
    ranker = small_ranker()
    clicks = array(*SESSIONS[session])
    found = everything(ranker)(clicks)
    np.testing.assert_allclose(found.transition_shares.sum(axis=0), found.parts.transitions, atol=1e-5)
    assert (found.transition_shares >= 0).all()


def test_a_click_gets_of_the_transitions_what_it_leads_to() -> None:
    ranker = small_ranker()
    graph, settings = ranker.stored.transitions, ranker.stored.transitions.settings
    row, weights = graph.row(9)
    target = int(row[weights.argmax()])
    shares = transition_shares(ranker.snapshot, array(7, 9), array(target))[:, 0]
    row, weights = graph.row(7)
    of_first = settings.click_decay * float(weights[row == target].sum())
    of_last = float(graph.row(9)[1].max())
    assert shares[0] / shares.sum() == pytest.approx(of_first / (of_first + of_last), abs=1e-6)
    without = small_ranker(transitions=0.0)
    assert not transition_shares(without.snapshot, array(7, 9), array(target)).any()


def test_training_sessions_are_counted_once_and_in_order() -> None:
    from llmgr_core.sessions import Sessions

    train = Sessions.from_lists([[1, 2, 1, 2], [2, 1], [1, 3, 2], [3, 3]])
    np.testing.assert_array_equal(
        sessions_followed(train, array(1, 2, 9), array(1, 2, 3), 10), [[1, 2, 1], [2, 1, 0], [0, 0, 0]]
    )
    np.testing.assert_array_equal(sessions_together(train, 1, array(2, 3, 9), 10), [3, 1, 0])
    np.testing.assert_array_equal(sessions_followed(train, array(3), array(3), 10), [[1]])
