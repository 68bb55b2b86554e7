"""Inserts, edits and deletions while sessions are being ranked."""

from __future__ import annotations

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from llmgr_core.errors import InputError
from llmgr_core.ranker import RankerRuntime, RowChange
from llmgr_core.ranker import item_rows as item_rows_module
from llmgr_core.ranker.item_rows import ItemRows

ITEMS = 60


def at(*indices: int) -> np.ndarray:
    return np.array(indices, dtype=np.int64)


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ITEMS, 12)).astype(np.float16)


@pytest.fixture
def runtime(make_stored, vectors: np.ndarray) -> RankerRuntime:
    return RankerRuntime(make_stored(ITEMS).parts("v1", [f"item-{n}" for n in range(ITEMS)]), vectors, sequence=7)


def new_vector(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(100 + seed).normal(size=12).astype(np.float16)


def test_new_item_is_ranked_by_text_alone(runtime: RankerRuntime) -> None:
    transform = runtime.parts.transform
    assert transform is not None
    runtime.upsert("brand new", new_vector())
    snapshot = runtime.snapshot
    assert snapshot.indices(["brand new"]).tolist() == [ITEMS]
    assert snapshot.item_id(ITEMS) == "brand new"
    row = transform.text_only_scale * transform.text_part(new_vector()[None])[0]
    np.testing.assert_allclose(snapshot.rows.vectors(at(ITEMS))[0], row, rtol=1e-5, atol=1e-5)
    assert ITEMS in snapshot.rank(at(1, 2), ITEMS + 1).indices
    assert not snapshot.rank(at(ITEMS), 5).fallback
    assert ITEMS not in snapshot.rank(at(ITEMS), ITEMS + 1).indices


def test_edited_text_of_a_known_item_is_added_to_its_id(runtime: RankerRuntime) -> None:
    transform = runtime.parts.transform
    assert transform is not None
    runtime.upsert("item-5", new_vector())
    expected = runtime.parts.id_vectors[5] + transform.text_part(new_vector()[None])[0]
    np.testing.assert_allclose(runtime.snapshot.rows.vectors(at(5))[0], expected, rtol=1e-5, atol=1e-5)
    runtime.upsert("item-5", None)
    np.testing.assert_allclose(runtime.snapshot.rows.vectors(at(5))[0], runtime.parts.id_vectors[5], rtol=1e-5, atol=1e-6)
    assert runtime.snapshot.num_items == ITEMS


def test_deleted_item_is_never_ranked_and_stays_valid_in_a_session(runtime: RankerRuntime) -> None:
    before = runtime.rank(at(5, 9), 10)
    runtime.remove("item-5")
    after = runtime.rank(at(5, 9), 10)
    np.testing.assert_array_equal(after.indices, before.indices)
    assert runtime.snapshot.indices(["item-5"]).tolist() == [5]
    for clicks in (at(1, 2), at()):
        assert 5 not in runtime.rank(clicks, ITEMS).indices
    assert len(runtime.rank(at(1), 5, candidates=at(5))) == 0
    assert runtime.snapshot.num_rankable == ITEMS - 1


def test_deleted_item_comes_back_with_an_upsert(runtime: RankerRuntime, vectors: np.ndarray) -> None:
    before = runtime.rank(at(1, 2), ITEMS)
    runtime.remove("item-5")
    runtime.upsert("item-5", vectors[5])
    np.testing.assert_array_equal(runtime.rank(at(1, 2), ITEMS).indices, before.indices)


def test_unknown_item_without_text_and_removal_of_an_unknown_one_change_nothing(runtime: RankerRuntime) -> None:
    runtime.upsert("no text", None)
    runtime.remove("never heard of")
    assert runtime.snapshot.num_items == ITEMS
    assert runtime.snapshot.indices(["no text", "never heard of"]).tolist() == [-1, -1]


def test_item_inserted_and_deleted_before_the_ranker_looked_is_valid_in_a_session(runtime: RankerRuntime) -> None:
    runtime.apply([RowChange("short-lived", new_vector(), removed=True)])
    (index,) = runtime.snapshot.indices(["short-lived"]).tolist()
    assert index == ITEMS
    assert not runtime.rank(at(index), 5).fallback
    assert index not in runtime.rank(at(1, 2), ITEMS + 1).indices


def test_new_item_keeps_its_place_in_the_session_for_the_transition_term(make_stored, vectors: np.ndarray) -> None:
    """A click before a brand-new item is the last but one, and counts less than the last."""
    parts = make_stored(ITEMS).parts("v1", [f"item-{n}" for n in range(ITEMS)])
    graph = parts.transitions
    assert graph is not None
    assert graph.settings.click_decay < 1.0
    looked_up: list[list[int]] = []

    class Watched:
        def lookup(self, clicks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            looked_up.append(clicks.tolist())
            return graph.lookup(clicks)

    runtime = RankerRuntime(dataclasses.replace(parts, transitions=Watched()), vectors)
    runtime.upsert("brand new", new_vector())
    runtime.rank(at(3, ITEMS), 5)
    assert looked_up == [[3, ITEMS]]
    alone, shifted = graph.lookup(at(3))[1], graph.lookup(at(3, ITEMS))[1]
    np.testing.assert_allclose(shifted, alone * graph.settings.click_decay, rtol=1e-6)


def test_new_item_that_loses_its_text_is_no_longer_ranked(runtime: RankerRuntime) -> None:
    runtime.upsert("brand new", new_vector())
    runtime.upsert("brand new", None)
    assert ITEMS not in runtime.rank(at(1, 2), ITEMS + 1).indices
    runtime.apply([RowChange("twice", new_vector()), RowChange("twice", None)])
    assert ITEMS + 1 not in runtime.rank(at(1, 2), ITEMS + 2).indices


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vector_that_is_not_finite_is_refused_and_changes_nothing(runtime: RankerRuntime, bad: float) -> None:
    vector = new_vector()
    vector[4] = bad
    before = runtime.snapshot
    with pytest.raises(InputError, match="NaN or an infinity"):
        runtime.upsert("item-5", vector)
    with pytest.raises(InputError, match="has 3 numbers"):
        runtime.upsert("item-5", vector[:3])
    assert runtime.snapshot is before


def test_bad_vector_among_others_is_reported_and_the_others_go_in(runtime: RankerRuntime) -> None:
    bad = np.full(12, np.nan, dtype=np.float16)
    changes = [RowChange("a", new_vector(1)), RowChange("item-3", bad), RowChange("b", new_vector(2))]
    before = runtime.snapshot.rows.vectors(at(3))
    assert runtime.apply(changes, sequence=10) == ["item-3"]
    snapshot = runtime.snapshot
    assert snapshot.indices(["a", "b"]).tolist() == [ITEMS, ITEMS + 1]
    np.testing.assert_array_equal(snapshot.rows.vectors(at(3)), before)
    assert snapshot.sequence == 10


def test_starting_with_a_bad_vector_is_refused(make_stored, vectors: np.ndarray) -> None:
    vectors[3, 3] = np.nan
    parts = make_stored(ITEMS).parts("v1", [f"item-{n}" for n in range(ITEMS)])
    with pytest.raises(InputError, match="NaN or an infinity"):
        RankerRuntime(parts, vectors)
    with pytest.raises(InputError, match="59 text vectors for the 60 items"):
        RankerRuntime(parts, vectors[:59])


def test_id_only_ranker_ignores_new_texts(make_stored) -> None:
    runtime = RankerRuntime(make_stored(ITEMS, text_dimension=0).parts("v1", [f"item-{n}" for n in range(ITEMS)]))
    runtime.upsert("brand new", new_vector())
    runtime.upsert("item-5", new_vector())
    assert runtime.snapshot.num_items == ITEMS
    np.testing.assert_allclose(runtime.snapshot.rows.vectors(at(5))[0], runtime.parts.id_vectors[5], rtol=1e-5, atol=1e-6)


def test_table_grows_over_many_blocks(runtime: RankerRuntime, monkeypatch: pytest.MonkeyPatch, make_stored) -> None:
    whole = {f"new-{n}": new_vector(n) for n in range(200)}
    runtime.apply([RowChange(name, vector) for name, vector in whole.items()])
    monkeypatch.setattr(item_rows_module, "BLOCK_ROWS", 16)
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 12)).astype(np.float16)
    small_blocks = RankerRuntime(make_stored(ITEMS).parts("v1", [f"item-{n}" for n in range(ITEMS)]), vectors)
    for name, vector in whole.items():
        small_blocks.upsert(name, vector)
    small_blocks.upsert("item-5", new_vector(7))
    monkeypatch.undo()
    runtime.upsert("item-5", new_vector(7))
    expected = runtime.rank(at(1, 200, 30), 260)
    monkeypatch.setattr(item_rows_module, "BLOCK_ROWS", 16)
    assert len(small_blocks.snapshot.rows.blocks) == 17
    found = small_blocks.rank(at(1, 200, 30), 260)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-5)


def test_rows_of_an_older_version_never_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_rows_module, "BLOCK_ROWS", 4)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 3)).astype(np.float32)
    old = ItemRows.from_array(rows)
    new = old.replaced({5: np.ones(3, dtype=np.float32)}).extended(rng.normal(size=(9, 3)).astype(np.float32))
    np.testing.assert_allclose(old.vectors(np.arange(6)), rows, rtol=1e-6)
    np.testing.assert_allclose(new.vectors(at(5))[0], np.ones(3), rtol=1e-6)
    np.testing.assert_allclose(new.vectors(np.arange(5)), rows[:5], rtol=1e-6)
    assert (old.count, new.count) == (6, 15)


def test_snapshot_taken_before_a_change_keeps_its_answer(runtime: RankerRuntime) -> None:
    snapshot = runtime.snapshot
    before = snapshot.rank(at(1, 2), ITEMS)
    runtime.apply([RowChange("item-7", new_vector()), RowChange("new", new_vector(1)), RowChange("item-8", removed=True)])
    after = snapshot.rank(at(1, 2), ITEMS)
    np.testing.assert_array_equal(before.indices, after.indices)
    np.testing.assert_array_equal(before.scores, after.scores)
    assert snapshot.indices(["new"]).tolist() == [-1]
    assert snapshot.num_items == ITEMS


def test_readers_see_whole_states_while_a_writer_changes_rows(runtime: RankerRuntime) -> None:
    """Every state the writer publishes moves two items together; no reader may see one moved and the other not."""
    stop = threading.Event()
    torn: list[object] = []
    answers = 0

    def read() -> None:
        nonlocal answers
        try:
            while not stop.is_set():
                snapshot = runtime.snapshot
                first, second = snapshot.rows.vectors(at(3)), snapshot.rows.vectors(at(4))
                shift = [row - runtime.parts.id_vectors[item] for item, row in ((3, first[0]), (4, second[0]))]
                if not np.allclose(shift[0], shift[1], atol=1e-4):
                    torn.append(snapshot.sequence)
                ranking = snapshot.rank(at(3, 4), ITEMS + 500)
                if len(ranking) != snapshot.num_items - 2 or not np.isfinite(ranking.scores).all():
                    torn.append(len(ranking))
                answers += 1
        except Exception as error:
            torn.append(error)

    runtime.apply([RowChange("item-3", new_vector()), RowChange("item-4", new_vector())])
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    # At least 300 changes, and on until the readers have had their turns.
    for number in itertools.count():
        vector = new_vector(number)
        new = RowChange(f"new-{number % 300}", vector)
        runtime.apply([RowChange("item-3", vector), new, RowChange("item-4", vector)], sequence=number)
        if torn or (number >= 299 and answers > 10):
            break
    stop.set()
    for reader in readers:
        reader.join()
    assert not torn
    assert runtime.snapshot.num_items == ITEMS + 300
