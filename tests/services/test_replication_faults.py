"""Replicas of a store through a Redis that dies, forgets, is damaged or is trimmed; nothing may be lost or doubled."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from bundle_fixture import FINGERPRINT, ITEMS, OTHER_FINGERPRINT, put
from patience import PATIENCE, wait_until
from prometheus_client import CollectorRegistry
from redis_fixture import Follower, contents, insert, is_copy, redis, replication

from llmgr_core.settings.replication import ReplicationSettings
from llmgr_core.store import Encoder, StoreError, StoreWriter
from llmgr_core.store.verification import verify_store
from llmgr_core.store.whole_copy import CopyPart
from services.ranking.live_ranker import LiveRanker
from services.replication import copy_sender
from services.replication.copy_sender import CopySender
from services.replication.metrics import RESYNC_REASONS, PublisherMetrics, ReplicaMetrics
from services.replication.publisher import Publisher
from services.replication.redis_link import Keys, connect
from services.replication.replica import Replica

__all__ = ["redis", "replication"]


def all_equal(source: Path, replicas: list[Path]) -> bool:
    return all(is_copy(replica, source) for replica in replicas)


def resyncs(follower: Follower) -> dict[str, float]:
    return {reason: follower.sample("llmgr_replica_resyncs_total", reason=reason) for reason in RESYNC_REASONS}


def rankings(bundle: Path, store: Path) -> list[tuple[list[str], np.ndarray]]:
    ranker = LiveRanker.open(bundle, store)
    try:
        snapshot, result = ranker.snapshot, []
        for start in range(5):
            ranking = snapshot.rank(np.arange(start, start + 6, dtype=np.int64), 30)
            result.append(([snapshot.item_id(row) for row in ranking.indices], ranking.scores))
        return result
    finally:
        ranker.close()


@pytest.mark.parametrize("seconds", [3.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_redis_dies_while_items_come_in(redis, replication, catalogue, tmp_path, seconds):
    replicas = [tmp_path / f"replica-{number}" for number in range(3)]
    with catalogue.writer() as writer:
        both = replication()
        publisher = both.publish(catalogue.store)
        for replica in replicas:
            both.follow(replica)
        wait_until(lambda: all_equal(catalogue.store, replicas), "the first copies did not come")
        rankers = [LiveRanker.open(catalogue.bundle, replica) for replica in replicas]
        number, died = 0, None
        while died is None or time.monotonic() < died + seconds:
            if died is None and number >= 10:
                redis.kill()
                died = time.monotonic()
            insert(writer, number, 2)
            writer.delete(f"item-{number % ITEMS}")
            number += 2
            for ranker in rankers:
                ranker.follow()
                assert len(ranker.snapshot.rank(np.array([1, 2], dtype=np.int64))) == 20
            time.sleep(0.01)
        wait_until(lambda: publisher.sample("llmgr_publisher_connected") == 0, "nobody noticed that Redis is away")
        assert not is_copy(replicas[0], catalogue.store)
        redis.start()
        insert(writer, number, 3)
        wait_until(lambda: all_equal(catalogue.store, replicas), "the replicas did not catch up")
    for replica in replicas:
        assert verify_store(replica).sound
    expected = rankings(catalogue.bundle, catalogue.store)
    for replica, ranker in zip(replicas, rankers, strict=True):
        for (ids, scores), (own_ids, own_scores) in zip(expected, rankings(catalogue.bundle, replica), strict=True):
            assert ids == own_ids
            assert np.array_equal(scores, own_scores)
        ranker.close()
    assert [sum(resyncs(one).values()) for one in both.followers[1:]] == [1, 1, 1]


def test_a_new_item_is_rankable_at_a_replica_and_a_deleted_one_is_not(replication, catalogue, tmp_path):
    with catalogue.writer() as writer:
        both = replication()
        both.pair(catalogue.store, tmp_path / "replica")
        ranker = LiveRanker.open(catalogue.bundle, tmp_path / "replica")
        sequence = insert(writer, 0, 1)
        wait_until(lambda: ranker.follow() is not None and ranker.snapshot.sequence >= sequence, "the item did not come")
        assert ranker.snapshot.index_of("new-0") >= 0
        assert ranker.store_epoch == writer.epoch
        sequence = writer.delete("new-0").sequence
        wait_until(lambda: ranker.follow() is not None and ranker.snapshot.sequence >= sequence, "the deletion did not come")
        assert ranker.snapshot.index_of("new-0") in ranker.snapshot.unrankable
        ranker.close()


def test_a_publisher_and_a_replica_go_on_where_they_stopped(replication, catalogue, tmp_path):
    with catalogue.writer() as writer:
        both = replication()
        publisher, replica = both.pair(catalogue.store, tmp_path / "replica")
        both.stop(replica)
        sequence = insert(writer, 0, 5)
        wait_until(lambda: publisher.sample("llmgr_publisher_sequence") == sequence, "not published")
        both.stop(publisher)
        insert(writer, 5, 5)
        publisher, replica = both.publish(catalogue.store), both.follow(tmp_path / "replica")
        insert(writer, 10, 5)
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "it did not go on")
        # The last ten were applied, none of them twice, and no whole copy was needed.
        wait_until(lambda: replica.sample("llmgr_replica_applied_changes_total") == 15, "changes were lost or applied twice")
        assert publisher.sample("llmgr_publisher_published_changes_total") <= 10
        assert not sum(resyncs(replica).values())


def test_a_replica_that_the_trimmed_stream_has_passed_fetches_a_whole_copy(replication, catalogue, tmp_path):
    with catalogue.writer() as writer:
        both = replication(keep_changes=5)
        publisher, replica = both.pair(catalogue.store, tmp_path / "replica")
        both.stop(replica)
        for number in range(12):
            sequence = insert(writer, number, 1)
            wait_until(lambda sequence=sequence: publisher.sample("llmgr_publisher_sequence") == sequence, "not published")
        writer.delete("item-3")
        replica = both.follow(tmp_path / "replica")
        wait_until(lambda: replica.sample("llmgr_replica_resyncs_total", reason="gap") == 1, "no whole copy")
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "it did not catch up")


def test_another_store_in_the_source_s_place_is_taken_over_whole(replication, catalogue, tmp_path):
    replica = tmp_path / "replica"
    both = replication()
    with catalogue.writer() as writer:
        publisher, follower = both.publish(catalogue.store), both.follow(replica)
        insert(writer, 0, 3)
        wait_until(lambda: is_copy(replica, catalogue.store), "no first copy")
        before = contents(replica)["epoch"]
        ranker = LiveRanker.open(catalogue.bundle, replica)
    with StoreWriter.open(tmp_path / "other") as other:
        other.activate(Encoder(FINGERPRINT, 16, "no model"))
        insert(other, 0, 4, "other")
    (tmp_path / "other" / "lock.mdb").unlink()
    for name in ("lock.mdb", "data.mdb"):
        (catalogue.store / name).unlink()
    (tmp_path / "other" / "data.mdb").rename(catalogue.store / "data.mdb")
    wait_until(lambda: follower.sample("llmgr_replica_resyncs_total", reason="other_source") == 1, "no whole copy")
    wait_until(lambda: is_copy(replica, catalogue.store), "the other store did not come")
    assert contents(replica)["epoch"] != before
    assert len(ranker.snapshot.rank(np.array([1, 2], dtype=np.int64))) == 20
    ranker.close()
    both.stop(publisher)
    with StoreWriter.open(catalogue.store) as writer:
        both.publish(catalogue.store)
        insert(writer, 0, 2, "later")
        wait_until(lambda: is_copy(replica, catalogue.store), "changes of the other store do not come")


def test_a_copy_that_is_ahead_of_what_its_publisher_said_is_not_fetched_again(replication, catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr("services.replication.publisher.BEAT_SECONDS", 0.0)
    settings, registry, fetched = replication().settings, CollectorRegistry(), []
    with catalogue.writer() as writer, monkeypatch.context() as slow:
        publisher = Publisher(catalogue.store, settings, PublisherMetrics(CollectorRegistry()))
        replica = Replica(tmp_path / "replica", settings, ReplicaMetrics(registry), fetched.append)
        publisher.step()
        fetching = threading.Thread(target=replica.step)
        fetching.start()
        wait_until(lambda: publisher._link.llen("llmgr:wanted"), "no wish")

        # It says where the store is, then items come, then it sends the copy, and is slow to send the changes.
        def insert_and_look(sender, look=CopySender.look):
            insert(writer, 0, 3)
            look(sender)

        slow.setattr(CopySender, "look", insert_and_look)
        slow.setattr(Publisher, "_send_all", lambda publisher: None)
        publisher.step()
        fetching.join()
        assert fetched[0].position == writer.sequence()
        replica.step()
        slow.undo()
        sequence = insert(writer, 3, 1)
        # Two beats: what it says now counts.
        for _ in range(2):
            publisher.step()
            replica.step()
        wait_until(lambda: replica.step() or registry.get_sample_value("llmgr_replica_sequence") == sequence, "no changes")
        assert registry.get_sample_value("llmgr_replica_resyncs_total", {"reason": "source_went_back"}) == 0
        replica.close()
        publisher.close()
        assert is_copy(tmp_path / "replica", catalogue.store)


def test_a_source_that_was_set_back_to_a_backup_takes_its_replicas_back(replication, catalogue, tmp_path):
    replica, backup = tmp_path / "replica", tmp_path / "backup"
    both = replication()
    backup.mkdir()
    (backup / "data.mdb").write_bytes((catalogue.store / "data.mdb").read_bytes())
    with catalogue.writer() as writer:
        publisher, follower = both.publish(catalogue.store), both.follow(replica)
        insert(writer, 0, 20)
        wait_until(lambda: is_copy(replica, catalogue.store), "no first copy")
        both.stop(publisher)
    for name in ("lock.mdb", "data.mdb"):
        (catalogue.store / name).unlink()
    (backup / "data.mdb").rename(catalogue.store / "data.mdb")
    with catalogue.writer() as writer:
        # The same store id, and by and by the same sequences again, with other items behind them.
        insert(writer, 100, 25, "again")
        both.publish(catalogue.store)
        wait_until(lambda: sum(resyncs(follower).values()) >= 2, "the replica stays in another history")
        wait_until(lambda: is_copy(replica, catalogue.store), "the replica stays in another history")


def test_a_redis_that_comes_back_with_an_old_memory_is_brought_up_to_date(replication, catalogue, tmp_path, redis):
    with catalogue.writer() as writer:
        both = replication()
        both.publish(catalogue.store)
        replica = both.follow(tmp_path / "replica")
        insert(writer, 0, 4)
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "no first copy")
        redis.command("SAVE")
        insert(writer, 4, 4)
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "the items did not come")
        redis.kill()
        redis.start()
        insert(writer, 8, 4)
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "it did not go on")
        assert sum(resyncs(replica).values()) == 1


@pytest.mark.parametrize("what", ["a change", "an encoder"])
def test_a_damaged_message_is_not_applied_and_a_whole_copy_mends_it(replication, catalogue, tmp_path, redis, what):
    import redis as client

    with catalogue.writer() as writer:
        both = replication()
        publisher, replica = both.pair(catalogue.store, tmp_path / "replica")
        both.stop(replica)
        insert(writer, 0, 1)
        wait_until(lambda: publisher.sample("llmgr_publisher_sequence") == writer.sequence(), "not published")
        link = client.Redis.from_url(redis.url)
        if what == "an encoder":
            # A second message of the same sequence.
            writer.register(Encoder(OTHER_FINGERPRINT, 16, "no model"))
            wait_until(lambda: link.xrevrange("llmgr:changes", count=1)[0][0].endswith(b"-1"), "not published")
        entry, fields = link.xrevrange("llmgr:changes", count=1)[0]
        message = bytearray(fields[b"block"])
        message[-10] ^= 4
        # In one step: the publisher would write an empty stream anew.
        link.pipeline().delete("llmgr:changes").xadd("llmgr:changes", {b"block": bytes(message)}, id=entry).execute()
        replica = both.follow(tmp_path / "replica")
        wait_until(lambda: replica.sample("llmgr_replica_resyncs_total", reason="damaged") == 1, "no whole copy")
        assert replica.sample("llmgr_replica_damaged_messages_total") >= 2
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "the item did not come")
        insert(writer, 1, 1)
        wait_until(lambda: replica.sample("llmgr_replica_applied_changes_total") == 1, "it did not go on behind the message")
        assert is_copy(tmp_path / "replica", catalogue.store)
        assert sum(resyncs(replica).values()) == 1
        link.close()


def test_another_encoder_made_active_without_a_change_reaches_the_replica(replication, catalogue, tmp_path):
    with catalogue.writer() as writer:
        both = replication()
        both.pair(catalogue.store, tmp_path / "replica")
        put(writer, "item-0", 0, OTHER_FINGERPRINT)
        writer.activate(Encoder(OTHER_FINGERPRINT, 16, "no model"))
        wait_until(lambda: contents(tmp_path / "replica")["active"] == OTHER_FINGERPRINT, "it did not come")
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "it did not come")


def test_two_stores_cannot_be_published_under_one_name(replication, catalogue, tmp_path):
    with StoreWriter.open(tmp_path / "other") as other, catalogue.writer() as writer:
        insert(other, 0, 2, "other")
        both = replication()
        both.pair(catalogue.store, tmp_path / "replica")
        intruder = both.publish(tmp_path / "other")
        wait_until(lambda: intruder.sample("llmgr_publisher_failures_total") > 0, "it was let in")
        insert(writer, 0, 2)
        wait_until(lambda: is_copy(tmp_path / "replica", catalogue.store), "the catalogue's own publisher was disturbed")


def test_a_store_of_its_own_is_never_overwritten(replication, catalogue, tmp_path):
    with StoreWriter.open(tmp_path / "own") as own:
        insert(own, 0, 3, "own")
    before = contents(tmp_path / "own")
    with catalogue.writer():
        both = replication()
        both.publish(catalogue.store)
        replica = both.follow(tmp_path / "own")
        wait_until(lambda: replica.sample("llmgr_replica_failures_total") > 1, "it did not refuse")
    assert contents(tmp_path / "own") == before


def test_nobody_but_the_replica_process_writes_to_a_replica(replication, catalogue, tmp_path):
    with catalogue.writer():
        both = replication()
        _, replica = both.pair(catalogue.store, tmp_path / "replica")
        both.stop(replica)
    with pytest.raises(StoreError, match="is a replica"):
        StoreWriter.open(tmp_path / "replica")


def test_a_publisher_that_stops_does_not_finish_a_copy_whose_reader_keeps_up(redis, catalogue, monkeypatch):
    over = threading.Event()

    def endless(store):
        while not over.wait(0.001):
            yield CopyPart("items", ())

    monkeypatch.setattr(copy_sender, "copy_parts", endless)
    monkeypatch.setattr(copy_sender, "WINDOW_PARTS", 1_000_000)
    settings = ReplicationSettings(redis=redis.url)
    link, keys = connect(settings), Keys(settings.name)
    sender = CopySender(link, keys, catalogue.store, 1, PublisherMetrics(CollectorRegistry()))
    link.set(keys.wish("wish"), b"1")
    link.rpush(keys.wanted, "wish")
    sender.look()
    wait_until(lambda: link.llen(keys.copy("wish")) > 3)
    stopping = threading.Thread(target=sender.stop)
    stopping.start()
    stopping.join(PATIENCE)
    ended = not stopping.is_alive()
    over.set()
    stopping.join()
    link.close()
    assert ended
