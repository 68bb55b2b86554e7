"""Text for rarely clicked items only: often clicked ones are their IDs, whatever the store holds for them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from llmgr_core.ranker import RankerRuntime, RowChange
from llmgr_core.ranker.tail_text import takes_text

ITEMS, BELOW = 60, 4


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ITEMS, 12)).astype(np.float16)


@pytest.fixture
def stored(make_stored):
    stored = make_stored(ITEMS, without_id=(7, 8))
    return dataclasses.replace(stored, description=stored.description.model_copy(update={"text_below": BELOW}))


def runtime_of(stored, vectors: np.ndarray, present: np.ndarray | None = None) -> RankerRuntime:
    return RankerRuntime(stored.parts("v1", [f"item-{n}" for n in range(ITEMS)]), vectors, present)


def rows(runtime: RankerRuntime) -> np.ndarray:
    return runtime.snapshot.rows.vectors(np.arange(runtime.snapshot.num_items))


def test_the_threshold() -> None:
    clicks = np.array([0, 1, 9, 10, 500])
    assert takes_text(clicks, 10).tolist() == [True, True, True, False, False]
    assert takes_text(clicks, 0).all()


def test_rows_of_often_clicked_items_are_their_ids(stored, vectors: np.ndarray) -> None:
    often = stored.popularity >= BELOW
    assert 5 < often.sum() < ITEMS - 5
    served = rows(runtime_of(stored, vectors))
    full = rows(
        runtime_of(dataclasses.replace(stored, description=stored.description.model_copy(update={"text_below": 0})), vectors)
    )
    np.testing.assert_allclose(served[often], stored.id_vectors[often], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(served[~often], full[~often], rtol=1e-4, atol=1e-5)
    assert np.abs(served[~often] - stored.id_vectors[~often]).max(axis=1).min() > 0.01


def test_a_store_without_their_vectors_serves_the_same(stored, vectors: np.ndarray) -> None:
    present = stored.popularity < BELOW
    spoiled = np.where(present[:, None], vectors, np.float16(0.0))
    np.testing.assert_array_equal(rows(runtime_of(stored, spoiled, present)), rows(runtime_of(stored, vectors)))


def test_an_edit_gives_no_text_to_an_often_clicked_item_and_new_items_have_theirs(stored, vectors: np.ndarray) -> None:
    often, seldom = int(np.argmax(stored.popularity)), int(np.flatnonzero((stored.popularity < BELOW) & stored.has_id)[0])
    runtime = runtime_of(stored, vectors)
    before = rows(runtime)
    changed = np.random.default_rng(9).normal(size=12).astype(np.float16)
    names = [f"item-{often}", f"item-{seldom}", "brand new"]
    assert runtime.apply([RowChange(name, changed) for name in names]) == []
    after = rows(runtime)
    np.testing.assert_array_equal(after[often], before[often])
    assert np.abs(after[seldom] - before[seldom]).max() > 1e-3
    text = runtime.parts.transform.row(None, changed)
    np.testing.assert_allclose(after[ITEMS], text, rtol=1e-5, atol=1e-5)
    assert runtime.apply([RowChange(f"item-{often}", removed=True), RowChange(f"item-{often}", changed)]) == []
    np.testing.assert_array_equal(rows(runtime)[often], before[often])
