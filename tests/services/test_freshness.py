"""What the store holds is ranked within moments, and never twice or not at all."""

from __future__ import annotations

import pytest
from bundle_fixture import ITEMS, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import PATIENCE, rank_from, wait_until

from services.client import RankingClient
from services.ranking.live_ranker import LiveRanker


def ranked_ids(client: RankingClient, sequence: int = 0) -> set[str]:
    return {item.item_id for item in rank_from(client, sequence, top_k=1000, include_seen=True).items}


def test_an_inserted_item_is_in_the_next_ranking_that_asks_for_it(catalogue, serve_ranking):
    with catalogue.writer() as writer, RankingClient(serve_ranking().address, timeout=PATIENCE) as client:
        assert "brand-new" not in ranked_ids(client)
        sequence = put(writer, "brand-new", seed=1000).sequence
        assert "brand-new" in ranked_ids(client, sequence)


def test_a_deleted_item_is_gone_but_stays_valid_in_a_session(catalogue, serve_ranking):
    with catalogue.writer() as writer, RankingClient(serve_ranking().address, timeout=PATIENCE) as client:
        sequence = writer.delete("item-9").sequence
        assert "item-9" not in ranked_ids(client, sequence)
        ranking = client.rank(["item-9"])
        assert not ranking.fallback
        assert ranking.unknown_item_ids == ()
        assert client.info().items == ITEMS - 1


def test_a_deleted_item_that_comes_back_is_ranked_again(catalogue, serve_ranking):
    with catalogue.writer() as writer, RankingClient(serve_ranking().address, timeout=PATIENCE) as client:
        writer.delete("item-9")
        sequence = put(writer, "item-9", seed=9).sequence
        assert "item-9" in ranked_ids(client, sequence)


def test_new_text_moves_an_item(catalogue, serve_ranking):
    with catalogue.writer() as writer, RankingClient(serve_ranking().address, timeout=PATIENCE) as client:
        before = {item.item_id: item.score for item in client.rank(["item-1"], top_k=1000).items}
        sequence = put(writer, "item-9", seed=4000).sequence
        after = {item.item_id: item.score for item in rank_from(client, sequence, top_k=1000).items}
        moved = {item_id for item_id in before if abs(before[item_id] - after[item_id]) > 1e-6}
        assert moved == {"item-9"}


@pytest.mark.parametrize(("poll_ms", "count"), [(20.0, 40), (1.0, 100)])
def test_the_last_change_before_a_pause_is_not_missed(catalogue, serve_ranking, poll_ms, count):
    with catalogue.writer() as writer:
        server = serve_ranking(poll_ms=poll_ms)
        for number in range(count):
            sequence = put(writer, f"new-{number % 7}", seed=6000 + number).sequence
            assert server.current.wait_for(sequence, PATIENCE), f"change {sequence} was missed"


def test_thousands_of_changes_at_once_are_all_taken_in(catalogue, serve_ranking):
    from bundle_fixture import FINGERPRINT, vector_of

    from llmgr_core.store import EmbeddedText, Put

    count = 9000
    text = EmbeddedText.of(FINGERPRINT, "one text for all", vector_of(1))
    with catalogue.writer() as writer:
        server = serve_ranking()
        written = writer.write([Put(f"bulk-{number}", b"{}", (text,)) for number in range(count)])
        assert server.current.wait_for(written[-1].sequence, PATIENCE)
    with RankingClient(server.address, timeout=PATIENCE) as client:
        ranking = client.rank([f"bulk-{count - 1}"], min_sequence=written[-1].sequence)
        assert not ranking.fallback
        assert client.info().items == ITEMS + count


def test_a_store_that_cannot_be_read_leaves_ranking_running_and_is_counted(catalogue, serve_ranking, monkeypatch):
    server = serve_ranking()

    def fail(self):
        raise OSError("the disk is gone")

    monkeypatch.setattr(LiveRanker, "follow", fail)
    wait_until(lambda: server.metrics.follow_failures._value.get() > 0)
    with RankingClient(server.address, timeout=PATIENCE) as client:
        assert len(client.rank(["item-1"]).items) == 20
    monkeypatch.undo()
    wait_until(lambda: not server._follower._failing)


changes = st.lists(
    st.tuples(st.sampled_from(["item-1", "item-2", "new-a", "new-b", "new-c"]), st.one_of(st.none(), st.integers(0, 50))),
    min_size=1,
    max_size=12,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=changes, looks=st.sets(st.integers(0, 11)))
def test_following_ends_where_loading_begins(tmp_path_factory, history, looks):
    """Whatever happened, and whenever the follower looked: the rows are those of a ranker that loads the store at the end."""
    from bundle_fixture import make_catalogue

    catalogue = make_catalogue(tmp_path_factory.mktemp("history"))
    with catalogue.writer() as writer:
        followed = LiveRanker.open(catalogue.bundle, catalogue.store)
        for number, (item_id, seed) in enumerate(history):
            if seed is None:
                writer.delete(item_id)
            else:
                put(writer, item_id, seed)
            if number in looks:
                followed.follow()
        followed.follow()
        loaded = LiveRanker.open(catalogue.bundle, catalogue.store)
        clicks = ["item-3", "item-4"]
        rankings = []
        for ranker in (followed, loaded):
            snapshot = ranker.snapshot
            ranking = snapshot.rank(snapshot.indices(clicks), 1000)
            names = [snapshot.item_id(index) for index in ranking.indices]
            rankings.append(dict(zip(names, ranking.probabilities.tolist(), strict=True)))
        followed.close()
        loaded.close()
    assert rankings[0] == pytest.approx(rankings[1], rel=1e-3, abs=1e-6)
