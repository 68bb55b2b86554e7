"""Approximate search in a server: off unset; what the store tells counts at once; recall is measured in place."""

from __future__ import annotations

import pytest
from bundle_fixture import ITEMS, free_port_settings, put
from patience import PATIENCE, rank_from, wait_until

from llmgr_core.errors import LlmgrError
from llmgr_core.ranker.approximate_snapshot import ApproximateSnapshot
from llmgr_core.settings.ann import AnnSettings
from llmgr_core.settings.serve import ServeSettings
from services.client import RankingClient
from services.ranking.live_ranker import LiveRanker

pytest.importorskip("faiss")
ANN = {"enabled": True, "least_items": 1, "shadow_share": 1.0, "shadow_per_second": 1000.0}


def test_it_is_off_and_rankings_have_probabilities_unless_it_is_set(serve_ranking):
    assert not ServeSettings().ann.enabled
    server = serve_ranking()
    assert type(server.current.ranker.snapshot) is not ApproximateSnapshot
    with RankingClient(server.address, timeout=PATIENCE) as client:
        assert all(item.probability is not None for item in client.rank(["item-1"]).items)


def test_a_small_table_is_scanned_all_the_same(catalogue):
    ranker = LiveRanker.open(catalogue.bundle, catalogue.store, ann=AnnSettings(enabled=True))
    assert not isinstance(ranker.snapshot, ApproximateSnapshot)
    ranker.close()


def test_rankings_have_no_probabilities_and_lists_of_candidates_have(serve_ranking):
    server = serve_ranking(ann=ANN)
    with RankingClient(server.address, timeout=PATIENCE) as client:
        found = client.rank(["item-1", "item-2"], top_k=20).items
        assert len(found) == 20
        assert all(item.probability is None for item in found)
        listed = client.rank(["item-1"], candidate_ids=["item-3", "item-4"]).items
        assert sum(item.probability for item in listed) == pytest.approx(1.0, abs=1e-5)
        assert all(item.probability is not None for item in client.rank([]).items)


def test_changes_of_the_store_count_at_once(catalogue, serve_ranking):
    """Inserted, changed and deleted items, while the index is as old as the server."""

    def scores(client: RankingClient, sequence: int) -> dict[str, float]:
        found = rank_from(client, sequence, top_k=1000, include_seen=True).items
        return {item.item_id: item.score for item in found}

    with catalogue.writer() as writer:
        server = serve_ranking(ann=ANN | {"rebuild_share": 1.0})
        client = RankingClient(server.address, timeout=PATIENCE)
        before = scores(client, 0)
        changed = scores(client, put(writer, "item-9", seed=4000).sequence)
        assert abs(changed["item-9"] - before["item-9"]) > 1e-6
        after = scores(client, put(writer, "brand-new", seed=1000).sequence)
        assert set(after) - set(before) == {"brand-new"}
        gone = scores(client, writer.delete("item-5").sequence)
        assert set(after) - set(gone) == {"item-5"}
        assert "brand-new" not in scores(client, writer.delete("brand-new").sequence)
        snapshot = server.current.ranker.snapshot
        assert isinstance(snapshot, ApproximateSnapshot)
        assert snapshot.index.count == ITEMS
        assert set(snapshot.tail.tolist()) == {9, ITEMS}
        client.close()


def test_an_index_that_is_too_old_is_built_anew_beside_the_requests(catalogue):
    with catalogue.writer() as writer:
        ranker = LiveRanker.open(catalogue.bundle, catalogue.store, ann=AnnSettings.model_validate(ANN))
        for number in range(5):
            put(writer, f"new-{number}", seed=1000 + number)
        ranker.follow()
        assert ranker.snapshot.tail.tolist() == list(range(ITEMS, ITEMS + 5))
        ranker.follow()
        # It is built from what was known by then; what changes meanwhile stays in the tail.
        put(writer, "item-3", seed=77)
        ranker.follow()
        wait_until(lambda: ranker.follow() is None and ranker.snapshot.index.count != ITEMS)
    assert ranker.snapshot.index.count == ITEMS + 5
    assert set(ranker.snapshot.tail.tolist()) <= {3}
    found = ranker.snapshot.rank(ranker.snapshot.indices(["item-1"]), 1000).indices
    assert set(range(ITEMS, ITEMS + 5)) <= set(found.tolist())
    ranker.close()


def test_recall_is_measured_in_place(serve_ranking):
    server = serve_ranking(ann=ANN)
    with RankingClient(server.address, timeout=PATIENCE) as client:
        # Every cell of so small a table is looked into.
        wait_until(lambda: client.rank(["item-1", "item-2"]) and server.metrics.ann_recall._sum.get() >= 1)
    assert server.registry.get_sample_value("llmgr_ranking_ann_recall_bucket", {"le": "0.9"}) == 0


def test_it_is_refused_together_with_a_gpu(catalogue):
    settings = free_port_settings(ann=ANN)
    with pytest.raises(LlmgrError, match=r"serve\.ann is for ranking on the CPU"):
        LiveRanker.open(catalogue.bundle, catalogue.store, "cuda", None, settings.ann)
