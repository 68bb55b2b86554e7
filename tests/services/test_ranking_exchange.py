"""A new bundle, or another store, at the same place is taken over without a restart."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bundle_fixture import ITEMS, OTHER_FINGERPRINT, Catalogue, put
from patience import PATIENCE, rank_from, wait_until

from services.client import RankingClient
from services.contract import ranking_service_pb2 as messages
from services.load.open_loop import run
from services.load.outcomes import Outcomes
from services.load.plan import LoadPlan, Method


def test_a_new_bundle_is_served_between_two_requests(serve_ranking, catalogue):
    server = serve_ranking()
    old = server.current.ranker.version
    answers, failures = [], []
    stop = threading.Event()

    def ask():
        with RankingClient(server.address, timeout=PATIENCE) as client:
            while not stop.is_set():
                try:
                    answers.append(client.rank(["item-1", "item-2"], top_k=3))
                except Exception as error:
                    failures.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    wait_until(lambda: len(answers) > 5)
    catalogue.write_bundle(seed=2)
    wait_until(lambda: server.current.ranker.version != old)
    seen = len(answers)
    wait_until(lambda: len(answers) > seen + 5)
    stop.set()
    asking.join()
    assert failures == []
    by_version = {answer.model_version: set() for answer in answers}
    for answer in answers:
        by_version[answer.model_version].add(answer.items)
    # Every answer is wholly the old bundle's or wholly the new one's.
    assert len(by_version) == 2
    assert all(len(items) == 1 for items in by_version.values())
    versions = [answer.model_version for answer in answers]
    assert versions == sorted(versions, key=lambda version: version != old)


def test_no_answer_mixes_bundles_or_states_while_both_change_under_load(serve_ranking, catalogue):
    """Two bundles whose answers differ take each other's place while items are edited: what a state answers is one thing."""
    request = messages.RankSessionRequest(item_ids=["item-1", "item-2"], top_k=10).SerializeToString()
    with ThreadPoolExecutor(1) as pool, catalogue.writer() as writer:
        # On a busy machine nothing may be shed: the load is not what is tested.
        server = serve_ranking(max_queue=1000)
        method = Method.at("RankSession", server.address, "/llmgr.v1.RankingService/RankSession")
        plan = LoadPlan.of_one(method, np.linspace(0.0, 0.3, 45), [request], timeout=PATIENCE)
        under_way, changed = threading.Event(), threading.Event()

        def load() -> list[Outcomes]:
            stretches = []
            while not changed.is_set() or len(stretches) < 10:
                stretches.append(run(plan, keep_replies=True))
                under_way.set()
            return stretches

        loading = pool.submit(load)
        assert under_way.wait(PATIENCE)
        for number, seed in enumerate((2, 1, 2)):
            served = server.current.ranker.version
            catalogue.write_bundle(seed=seed)
            put(writer, "item-3", seed=4000 + number)
            wait_until(lambda served=served: server.current.ranker.version != served)
            put(writer, "item-7", seed=5000 + number)
        changed.set()
        stretches = loading.result()
    assert all(one.statuses() == {"OK": 45} for one in stretches)
    answers = [messages.RankSessionResponse.FromString(reply) for one in stretches for reply in one.replies]
    by_state: dict[tuple[str, int], set[tuple]] = {}
    for one in answers:
        ranked = tuple((item.item_id, item.score, item.probability) for item in one.items)
        by_state.setdefault((one.model_version, one.sequence), set()).add(ranked)
    assert all(len(ranked) == 1 for ranked in by_state.values())
    assert len({version for version, _ in by_state}) == 2
    # Different states do answer differently, so that a mixture would show.
    assert len({next(iter(ranked)) for ranked in by_state.values()}) == len(by_state)


def test_a_new_bundle_keeps_following_the_store(serve_ranking, catalogue):
    with catalogue.writer() as writer, RankingClient(serve_ranking().address, timeout=PATIENCE) as client:
        old = client.info().model_version
        first = put(writer, "before", seed=2000)
        catalogue.write_bundle(seed=2)
        wait_until(lambda: client.info().model_version != old)
        second = put(writer, "after", seed=2001)
        ranking = rank_from(client, second.sequence, candidate_ids=["before", "after"])
        assert {item.item_id for item in ranking.items} == {"before", "after"}
        assert first.sequence < second.sequence <= ranking.sequence


@pytest.mark.parametrize("damage", ["changed byte", "other model"])
def test_a_bundle_that_cannot_be_served_leaves_the_old_one_serving(serve_ranking, catalogue, tmp_path, damage):
    server = serve_ranking()
    old = server.current.ranker.version
    new = Catalogue(tmp_path / "new-bundle", catalogue.store)
    new.write_bundle(seed=2, **({"fingerprint": OTHER_FINGERPRINT} if damage == "other model" else {}))
    if damage == "changed byte":
        new.damage_weights()
    shutil.rmtree(catalogue.bundle)
    new.bundle.rename(catalogue.bundle)
    refused = server.metrics.bundle_loads.labels("refused")
    wait_until(lambda: refused._value.get() >= 1)
    with RankingClient(server.address, timeout=PATIENCE) as client:
        assert client.rank(["item-1"]).model_version == old
    # The right one after it is taken at once.
    shutil.rmtree(catalogue.bundle)
    catalogue.write_bundle(seed=3)
    wait_until(lambda: server.current.ranker.version != old)


def test_a_bundle_that_vanishes_leaves_the_old_one_serving(serve_ranking, catalogue):
    server = serve_ranking()
    shutil.rmtree(catalogue.bundle)
    time.sleep(0.2)
    with RankingClient(server.address, timeout=PATIENCE) as client:
        assert len(client.rank(["item-1"]).items) == 20
    assert server.metrics.bundle_loads.labels("refused")._value.get() == 0


def test_another_store_at_the_same_place_is_taken_over(serve_ranking, catalogue, tmp_path):
    server = serve_ranking()
    other = Catalogue(catalogue.bundle, tmp_path / "other-store")
    other.write_store()
    with other.writer() as writer:
        put(writer, "only-there", seed=3000)
        epoch = writer.epoch
    catalogue.store.rename(tmp_path / "old-store")
    other.store.rename(catalogue.store)
    with RankingClient(server.address, timeout=PATIENCE) as client:
        wait_until(lambda: client.info().store_epoch == epoch)
        ranking = client.rank(["item-1"], candidate_ids=["only-there"])
        assert [item.item_id for item in ranking.items] == ["only-there"]
        assert client.info().items == ITEMS + 1
