"""Rankings by an index against exact ones: what is found, what is never missed, what is never returned."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from llmgr_core.errors import LlmgrError
from llmgr_core.ranker import RankerRuntime, RowChange, Snapshot
from llmgr_core.ranker.approximate_snapshot import ApproximateSnapshot
from llmgr_core.ranker.item_rows import BLOCK_ROWS, ItemRows
from llmgr_core.ranker.row_index import RowIndex
from llmgr_core.settings.encoder import EncoderSettings

pytest.importorskip("faiss")
ITEMS, CLUSTER, SESSIONS = 50_000, 100, 100
NOTHING = np.zeros(0, dtype=np.int64)


def clustered(items: int, dimension: int = 64) -> np.ndarray:
    """Rows float32 [items, dimension] in clusters; item i belongs to cluster i // CLUSTER."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(-(-items // CLUSTER), dimension))
    noise = random.normal(scale=0.5, size=(items, dimension))
    return (np.repeat(centres, CLUSTER, axis=0)[:items] + noise).astype(np.float32)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return clustered(ITEMS)


def sessions() -> list[np.ndarray]:
    random = np.random.default_rng(4)
    return [random.integers(0, CLUSTER, 4) + CLUSTER * random.integers(0, ITEMS // CLUSTER) for _ in range(SESSIONS)]


@pytest.fixture
def snapshot(make_stored, rows: np.ndarray) -> Snapshot:
    stored = make_stored(ITEMS, text_dimension=0, encoder=EncoderSettings(dimension=64, max_clicks=6))
    parts = dataclasses.replace(stored.parts("v1", [f"item-{n}" for n in range(ITEMS)]), id_vectors=rows)
    return RankerRuntime(parts).snapshot


def index_of(snapshot: Snapshot, probes: int = 64) -> RowIndex:
    return RowIndex(snapshot.rows, cosine=snapshot.parts.cosine, probes=probes)


def recall(approximate: Snapshot, exact: Snapshot, k: int = 20) -> float:
    found = [approximate.rank(session, k).indices for session in sessions()]
    wanted = [exact.rank(session, k).indices for session in sessions()]
    return float(np.mean([np.isin(one, other).mean() for one, other in zip(wanted, found, strict=True)]))


def test_most_of_the_exact_ranking_is_found_and_scored_exactly(snapshot: Snapshot) -> None:
    approximate = ApproximateSnapshot.over(snapshot, index_of(snapshot), NOTHING)
    assert recall(approximate, snapshot) >= 0.95
    # Cells are really left out: with few of them, something is missing.
    few = ApproximateSnapshot.over(snapshot, index_of(snapshot, probes=1), NOTHING)
    assert recall(few, snapshot) < recall(approximate, snapshot)
    for session in sessions()[:20]:
        found, exact = approximate.rank(session), snapshot.rank(session)
        assert found.approximate
        assert not exact.approximate
        assert np.isnan(found.probabilities).all()
        assert np.all(np.diff(found.scores) <= 0.0)
        scores = dict(zip(exact.indices.tolist(), exact.scores.tolist(), strict=True))
        for index, score in zip(found.indices.tolist(), found.scores.tolist(), strict=True):
            assert scores.get(index, score) == pytest.approx(score, rel=1e-4, abs=1e-4)


def test_what_follows_a_click_and_what_is_new_is_never_missed(snapshot: Snapshot) -> None:
    class Empty:
        def search(self, query: np.ndarray, most: int) -> np.ndarray:
            return np.arange(100, 200)

    tail = np.array([7, ITEMS - 1])
    approximate = ApproximateSnapshot.over(snapshot, Empty(), tail)  # type: ignore[arg-type]
    clicked = next(item for item in range(ITEMS) if len(snapshot.transition_terms(np.array([item]))[0]))
    followers = snapshot.transition_terms(np.array([clicked]))[0]
    considered = np.union1d(np.concatenate([np.arange(100, 200), tail]), followers)
    found = approximate.rank(np.array([clicked]), len(considered), include_seen=True)
    expected = snapshot.rank(np.array([clicked]), len(considered), candidates=considered, include_seen=True).indices
    assert found.approximate
    np.testing.assert_array_equal(found.indices, expected)
    assert {7, ITEMS - 1, *followers.tolist()} <= set(found.indices.tolist())


def test_exclusions_candidates_and_popularity_are_exact(snapshot: Snapshot) -> None:
    approximate = ApproximateSnapshot.over(snapshot, index_of(snapshot), NOTHING)
    session = sessions()[0]
    best = snapshot.rank(session, 40).indices
    found = approximate.rank(session, 20, exclude=best[:20])
    assert not set(best[:20].tolist()) & set(found.indices.tolist())
    assert np.isin(best[20:], found.indices).mean() >= 0.9
    listed = np.arange(0, ITEMS, 50)
    chosen = approximate.rank(session, 20, candidates=listed)
    exact = snapshot.rank(session, 20, candidates=listed)
    assert not chosen.approximate
    np.testing.assert_array_equal(chosen.indices, exact.indices)
    np.testing.assert_allclose(chosen.probabilities, exact.probabilities)
    assert not approximate.rank(NOTHING).approximate
    np.testing.assert_array_equal(approximate.rank(NOTHING).indices, snapshot.rank(NOTHING).indices)


def test_where_nearly_all_that_is_found_is_deleted_the_table_is_scanned(snapshot: Snapshot) -> None:
    runtime = RankerRuntime(snapshot.parts)
    index = index_of(runtime.snapshot)
    session = sessions()[1]
    gone = runtime.rank(session, 400).indices
    runtime.apply([RowChange(f"item-{one}", removed=True) for one in gone])
    found = ApproximateSnapshot.over(runtime.snapshot, index, NOTHING).rank(session, 100)
    assert len(found) == 100
    assert not set(gone.tolist()) & set(found.indices.tolist())
    np.testing.assert_array_equal(found.indices, runtime.rank(session, 100).indices)
    assert np.isfinite(found.probabilities).all()


@pytest.mark.parametrize("cosine", [True, False])
def test_the_index_ranks_by_the_same_product_as_the_table(cosine: bool) -> None:
    table = clustered(2000, 16) * np.random.default_rng(1).uniform(0.5, 2.0, size=(2000, 1)).astype(np.float32)
    rows = ItemRows.from_array(table)
    index = RowIndex(rows, cosine=cosine, probes=10_000)
    query = table[5]
    products = np.empty(len(table), dtype=np.float32)
    rows.products(query, cosine, out=products)
    assert set(index.search(query, 10).tolist()) <= set(np.argsort(-products)[:12].tolist())
    assert len(index.search(query, 5000)) == 2000


def test_without_faiss_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(LlmgrError, match="faiss is not installed"):
        RowIndex(ItemRows.from_array(clustered(300, 8)), cosine=True, probes=4)


def test_rows_of_many_blocks_are_gathered_in_any_order() -> None:
    table = clustered(3 * BLOCK_ROWS, 4)
    rows = ItemRows.from_array(table)
    mixed = np.random.default_rng(5).integers(0, len(table), 500)
    for indices in (mixed, np.sort(mixed), np.array([BLOCK_ROWS]), np.array([BLOCK_ROWS - 1, BLOCK_ROWS]), NOTHING):
        np.testing.assert_allclose(rows.vectors(indices), table[indices], rtol=1e-5, atol=1e-6)
