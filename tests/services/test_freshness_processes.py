"""Both servers as processes on one store: a brand-new item, and kill -9."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from bundle_fixture import Catalogue, make_live_catalogue
from patience import PATIENCE, rank_from, wait_until
from server_process import LiveServers, places, start_both

from llmgr_core.data.item import Item
from llmgr_core.store import EmbeddingStore
from services.client import EmbeddingClient, RankingClient, ServiceError
from services.client.calls import RetryPolicy
from services.client.local_server import ServerProcess


def lamp(number: int) -> Item:
    return Item(f"lamp-{number}", title=f"Brass lamp number {number}", description="It gives a warm light.")


@pytest.fixture(scope="module")
def live(tmp_path_factory, tiny_language_model) -> tuple[Path, Catalogue]:
    directory = tmp_path_factory.mktemp("live")
    return directory, make_live_catalogue(directory, tiny_language_model)


def ranked_ids(client: RankingClient, sequence: int) -> set[str]:
    return {item.item_id for item in rank_from(client, sequence, top_k=1000).items}


def insert_rank_delete(servers: LiveServers) -> None:
    with (
        EmbeddingClient(servers.embedding.address) as inserts,
        RankingClient(servers.ranking.address, timeout=PATIENCE) as ranks,
    ):
        assert inserts.info().model_version == ranks.info().encoder_version
        assert inserts.info().store_epoch == ranks.info().store_epoch
        embedded = inserts.embed(lamp(0))
        assert "lamp-0" in ranked_ids(ranks, embedded.sequence)
        assert not ranks.rank(["lamp-0"]).fallback
        deleted = inserts.delete("lamp-0")
        assert "lamp-0" not in ranked_ids(ranks, deleted.sequence)
        assert inserts.embed(lamp(0)).cached


def test_an_item_inserted_over_grpc_is_in_the_next_ranking_and_a_deleted_one_is_gone(live_servers):
    insert_rank_delete(live_servers)


@pytest.mark.weights
def test_the_same_with_real_weights(tmp_path, minilm):
    with start_both(tmp_path, make_live_catalogue(tmp_path, minilm)) as servers:
        insert_rank_delete(servers)


def test_nothing_acknowledged_is_lost_when_the_embedding_server_is_killed(live):
    directory, catalogue = live
    acknowledged: dict[str, int] = {}
    rankings: list[float] = []
    broken: list[Exception] = []
    stop = threading.Event()

    def insert(address: str, first: int) -> None:
        with EmbeddingClient(address, timeout=PATIENCE, retry=RetryPolicy(attempts=1)) as client:
            # Together fewer than one ranking holds, however late this server is killed.
            for number in range(first, first + 250):
                try:
                    embedded = client.embed(lamp(number))
                except ServiceError:
                    return
                acknowledged[embedded.item_id] = embedded.sequence

    def rank(address: str) -> None:
        with RankingClient(address, timeout=PATIENCE, retry=RetryPolicy(attempts=1)) as client:
            while not stop.is_set():
                try:
                    rankings.append(client.rank(["item-1"]).timing.total_ms)
                except ServiceError as error:
                    broken.append(error)
                time.sleep(0.01)

    with ServerProcess("ranking", directory, *places(catalogue)) as ranking:
        with ServerProcess("embedding", directory, *places(catalogue)) as embedding:
            workers = [threading.Thread(target=insert, args=(embedding.address, 1000 * one)) for one in (1, 2, 3)]
            workers.append(threading.Thread(target=rank, args=(ranking.address,), daemon=True))
            for worker in workers:
                worker.start()
            wait_until(lambda: len(acknowledged) >= 30)
            embedding.kill()
        for worker in workers[:-1]:
            worker.join()
        kept = dict(acknowledged)
        while_down = len(rankings)
        with ServerProcess("embedding", directory, *places(catalogue)) as again, EmbeddingClient(again.address) as client:
            for item_id, sequence in kept.items():
                assert client.get(item_id).sequence == sequence
            newest = client.embed(lamp(9999)).sequence
            assert newest > max(kept.values())
            with RankingClient(ranking.address, timeout=PATIENCE) as ranks:
                assert kept.keys() | {"lamp-9999"} <= ranked_ids(ranks, newest)
            assert again.terminate() == 0
        stop.set()
        workers[-1].join()
    assert len(rankings) > while_down
    assert broken == []
    with EmbeddingStore.open(catalogue.store) as store:
        assert store.snapshot(store.active_fingerprint()).present.all()
        assert store.damaged_count == 0


def test_a_killed_ranking_server_serves_again_and_leaves_the_writer_alone(live_servers, tmp_path):
    catalogue = live_servers.catalogue
    with EmbeddingClient(live_servers.embedding.address) as inserts:
        with ServerProcess("ranking", tmp_path, *places(catalogue)) as ranking:
            with RankingClient(ranking.address, timeout=PATIENCE) as ranks:
                before = ranks.rank(["item-1", "item-2"])
            port = ranking.port
            ranking.kill()
        sequence = inserts.embed(lamp(5000)).sequence
        # The very port: connections of the dead server do not hold it.
        with (
            ServerProcess("ranking", tmp_path, *places(catalogue), port=port) as again,
            RankingClient(again.address, timeout=PATIENCE) as ranks,
        ):
            assert again.port == port
            assert "lamp-5000" in ranked_ids(ranks, sequence)
            assert ranks.rank(["item-1", "item-2"]).model_version == before.model_version
            assert again.terminate() == 0


def test_the_client_sees_every_change_once_and_in_order(live_servers):
    with EmbeddingClient(live_servers.embedding.address) as client:
        start = client.info().sequence
        outcomes = list(client.embed_many([lamp(7000), Item("no-text"), lamp(7001)]))
        stored = {one.item_id: one.sequence for one in outcomes if hasattr(one, "sequence")}
        rejected = [one for one in outcomes if not hasattr(one, "sequence")]
        assert [(one.item_id, one.code) for one in rejected] == [("no-text", "INVALID_ARGUMENT")]
        assert sorted(one.index for one in outcomes) == [0, 1, 2]
        client.delete("lamp-7000")
        changes = []
        for change in client.changes(start, return_vector=True, timeout=PATIENCE):
            changes.append(change)
            if change.sequence == change.head_sequence:
                break
    assert [change.sequence for change in changes] == list(range(start + 1, start + 4))
    assert [change.deleted for change in changes] == [False, False, True]
    assert {change.item_id: change.sequence for change in changes[:2]} == stored
