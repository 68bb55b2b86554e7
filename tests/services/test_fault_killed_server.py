"""A server that is killed while it writes."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from embedding_fixture import (
    FINGERPRINT,
)
from embedding_server_process import server_process

from llmgr_core.data.item import Item
from llmgr_core.store import EmbeddingStore
from llmgr_core.store.verification import verify_store
from services.client import ServiceError


def insert_until_cut_off(client, number, acknowledged):
    """Insert until the server is gone; add (item id, sequence) of what it acknowledged."""
    try:
        for count in range(100_000):
            # Texts come, go and come back, so that pruning has something to do.
            client.embed(Item(f"t{number}-{count}", title=f"before {count % 7}"))
            reply = client.embed(Item(f"t{number}-{count}", title=f"text {number} {count % 50}"))
            acknowledged.append((reply.item_id, reply.sequence))
    except ServiceError:
        pass


def kill_servers(path, rounds):
    promised = []
    for number in range(rounds):
        # Every second server prunes all the time.
        pruning = ("embed.prune_hours=0.000001", "embed.keep_changes=10") if number % 2 else ()
        with server_process(path, *pruning) as (process, client, _), ThreadPoolExecutor(4) as pool:
            enough = len(promised) + 20 + 37 * (number % 5)
            for thread in range(4):
                pool.submit(insert_until_cut_off, client, 10 * number + thread, promised)
            while len(promised) < enough and process.poll() is None:
                time.sleep(0.003)
            process.kill()
    promised = dict(promised)
    assert len(promised) >= 20 * rounds
    report = verify_store(path)
    assert report.problems == []
    with EmbeddingStore.open(path) as store:
        for item_id, sequence in promised.items():
            assert store.get_item(item_id).sequence == sequence
        assert store.read_vectors(list(promised), FINGERPRINT)[1].all()


def test_fault_kill_9_embedding_server(tmp_path):
    kill_servers(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fault_kill_9_embedding_server_two_hundred_times(tmp_path):
    kill_servers(tmp_path, 200)
