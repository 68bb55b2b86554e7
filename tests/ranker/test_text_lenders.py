"""Who lends transitions to a new item, and that a server's rankings have them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from llmgr_core.errors import ArtefactError
from llmgr_core.ranker import RankerRuntime
from llmgr_core.ranker.graphed_ranking import GraphedRanking
from llmgr_core.ranker.stored import SETTINGS_NAME, StoredRanker
from llmgr_core.ranker.text_lenders import FILE_NAME, TextLenders
from llmgr_core.ranker.whitening import Whitening
from llmgr_core.settings.transitions import TransitionSettings

ITEMS, WIDTH, RANK = 60, 12, 5
NEW = (7, 31, 44)
NAMES = [f"item-{n}" for n in range(ITEMS)]


def at(*indices: int) -> np.ndarray:
    return np.array(indices, dtype=np.int64)


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ITEMS, WIDTH)).astype(np.float16)


@pytest.fixture
def stored(make_stored, vectors: np.ndarray) -> StoredRanker:
    ranker = make_stored(ITEMS, text_dimension=WIDTH, without_id=NEW)
    lending = ranker.popularity > 0
    whitening = Whitening.fit(vectors[lending], WIDTH, 1.0)
    return dataclasses.replace(ranker, lenders=TextLenders.collect(whitening, vectors, lending, RANK))


def runtime_of(stored: StoredRanker, vectors: np.ndarray) -> RankerRuntime:
    return RankerRuntime(stored.parts("v1", NAMES), vectors)


def score_of(runtime: RankerRuntime, item: int, clicks: np.ndarray) -> np.float32:
    ranking = runtime.rank(clicks, runtime.snapshot.num_items)
    return ranking.scores[ranking.indices == item][0]


@pytest.mark.parametrize("count", [1, 4, 100])
def test_lenders_are_the_nearest_clicked_items_by_whitened_text(stored, vectors, count):
    lenders = stored.lenders
    loan = lenders.loan(vectors[7], TransitionSettings(text_neighbours=count, text_sharpness=2.0))
    assert 7 not in lenders.items
    whitened = lenders.whitening.apply(vectors)
    unit = whitened / np.linalg.norm(whitened, axis=1, keepdims=True)
    cosines = unit[lenders.items] @ unit[7]
    best = np.argsort(-cosines)[:count]
    best = np.sort(best[cosines[best] > 0])
    assert loan.lenders.tolist() == lenders.items[best].tolist()
    np.testing.assert_allclose(loan.shares, cosines[best] ** 2 / (cosines[best] ** 2).sum(), rtol=5e-3, atol=1e-4)
    assert loan.shares.sum() == pytest.approx(1.0, abs=1e-6)


def test_a_new_item_follows_what_its_lenders_follow(stored, vectors):
    """The transition term of an inserted item is that of the formula, in the whole ranking and among candidates."""
    runtime = runtime_of(stored, vectors)
    vector = vectors[20] + np.float16(0.01)
    runtime.upsert("new", vector)
    clicks = at(3, 9, 27)
    loan = stored.lenders.loan(vector, stored.transitions.settings)
    strengths = np.zeros(ITEMS)
    items, values = stored.transitions.lookup(clicks)
    strengths[items] = values
    scoring = stored.description.scoring
    lent = stored.transitions.settings.text_new_targets * float(loan.shares @ strengths[loan.lenders])
    assert lent > 0
    plain = RankerRuntime(dataclasses.replace(stored.parts("v1", NAMES), lenders=None), vectors)
    plain.upsert("new", vector)
    term = scoring.transition_weight * np.log1p(scoring.transition_slope * lent) / scoring.temperature
    assert score_of(runtime, ITEMS, clicks) == pytest.approx(score_of(plain, ITEMS, clicks) + term, abs=1e-4)
    chosen = runtime.rank(clicks, 5, candidates=at(ITEMS, 5))
    assert chosen.scores[chosen.indices == ITEMS][0] == pytest.approx(score_of(runtime, ITEMS, clicks), abs=1e-5)


def test_inserted_later_or_known_from_the_start_is_one_score(stored, vectors):
    """An item of the catalogue without a click, and a brand-new one with the same text, borrow the same bits."""
    runtime = runtime_of(stored, vectors)
    runtime.upsert("twin", vectors[31])
    transitions = runtime.snapshot.transitions
    mine, its = (transitions.borrower == ITEMS), (transitions.borrower == 31)
    np.testing.assert_array_equal(transitions.lender[mine], transitions.lender[its])
    np.testing.assert_array_equal(transitions.share[mine], transitions.share[its])
    for mine_row, its_row in zip(transitions.rows[ITEMS], transitions.rows[31], strict=True):
        np.testing.assert_array_equal(mine_row, its_row)
    for clicks in (at(3, 9, 27), at(1), at(7, 2)):
        assert score_of(runtime, ITEMS, clicks) == pytest.approx(score_of(runtime, 31, clicks), abs=1e-5)


def test_a_device_ranks_borrowers_as_the_host_does(stored, vectors):
    runtime = runtime_of(stored, vectors)
    graphed = GraphedRanking(stored, runtime, "cpu")
    runtime.upsert("new", vectors[20])
    for clicks in (at(3, 9, 27), at(ITEMS, 2)):
        found, expected = (one.rank(clicks, ITEMS) for one in (graphed.snapshot(), runtime.snapshot))
        assert found.indices.tolist() == expected.indices.tolist()
        np.testing.assert_allclose(found.scores, expected.scores, atol=2e-5)


def test_as_a_click_a_new_item_leads_where_its_lenders_lead(stored, vectors):
    runtime = runtime_of(stored, vectors)
    runtime.upsert("new", vectors[20])
    items, strengths = runtime.snapshot.transitions.lookup(at(ITEMS))
    assert len(items)
    assert (strengths > 0).all()
    first = stored.lenders.loan(vectors[20], stored.transitions.settings).lenders[0]
    assert set(stored.transitions.row(int(first))[0]) <= set(items)


def test_edited_text_borrows_anew_and_an_older_snapshot_stays(stored, vectors):
    runtime = runtime_of(stored, vectors)
    runtime.upsert("new", vectors[20])
    before = runtime.snapshot
    held = before.rank(at(3, 9, 27), ITEMS + 1).scores
    runtime.upsert("new", vectors[40])
    transitions = runtime.snapshot.transitions
    expected = stored.lenders.loan(vectors[40], stored.transitions.settings)
    assert transitions.lender[transitions.borrower == ITEMS].tolist() == expected.lenders.tolist()
    np.testing.assert_array_equal(before.rank(at(3, 9, 27), ITEMS + 1).scores, held)
    runtime.upsert("item-5", vectors[40])
    assert 5 not in runtime.snapshot.transitions.rows, "an item with training clicks has transitions of its own"
    runtime.upsert("item-31", None)
    assert 31 not in runtime.snapshot.transitions.rows


def test_written_and_read_again_it_lends_the_same_bits(stored, vectors, tmp_path: Path):
    stored.write(tmp_path)
    again = StoredRanker.read(tmp_path)
    knobs = stored.transitions.settings
    mine, its = stored.lenders.loan(vectors[7], knobs), again.lenders.loan(vectors[7], knobs)
    np.testing.assert_array_equal(mine.lenders, its.lenders)
    np.testing.assert_array_equal(mine.shares, its.shares)
    assert again.description.text_lenders


def test_a_ranker_that_lost_its_lenders_is_refused(stored, tmp_path: Path):
    stored.write(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(ArtefactError, match="holds no usable ranker"):
        StoredRanker.read(tmp_path)


def test_a_ranker_from_before_there_were_lenders_lends_nothing(stored, vectors, tmp_path: Path):
    """Its new items are ranked by text alone, as they were; its settings do not know of lenders at all."""
    dataclasses.replace(stored, lenders=None).write(tmp_path)
    settings = json.loads((tmp_path / SETTINGS_NAME).read_text())
    del settings["text_lenders"]
    (tmp_path / SETTINGS_NAME).write_text(json.dumps(settings))
    older = StoredRanker.read(tmp_path)
    runtime = runtime_of(older, vectors)
    runtime.upsert("new", vectors[20])
    assert ITEMS not in runtime.snapshot.transition_terms(at(3, 9, 27))[0]
    assert np.isfinite(score_of(runtime, ITEMS, at(3, 9, 27)))


def test_lenders_of_another_ranker_are_refused(stored, tmp_path: Path):
    other = dataclasses.replace(stored.lenders, items=stored.lenders.items + ITEMS)
    dataclasses.replace(stored, lenders=other).write(tmp_path)
    with pytest.raises(ArtefactError, match="do not fit"):
        StoredRanker.read(tmp_path)
