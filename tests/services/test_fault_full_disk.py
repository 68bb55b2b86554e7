"""A full disk: inserts are refused, ranking goes on, and both heal by themselves."""

import resource
from dataclasses import replace

import grpc
import numpy as np
from bundle_fixture import DIMENSION, free_port_settings, make_catalogue
from bundle_fixture import FINGERPRINT as BUNDLE_FINGERPRINT
from embedding_fixture import (
    ControlledModel,
    client_of,
    embedding_service,
    encoder_around,
    settings_with,
)
from patience import PATIENCE, rank_from
from rounds import rounds
from small_disk import small_disk_at

from llmgr_core.data.item import Item
from llmgr_core.store.verification import verify_store
from services.client import RankingClient, ServiceError
from services.client.calls import RetryPolicy
from services.embedding.background import serve_in_background
from services.ranking.server import RankingServer


class WideModel(ControlledModel):
    """Vectors of the bundle's dimensions."""

    def vector(self, text):
        return np.resize(super().vector(text), DIMENSION)


def insert_until_refused(client, acknowledged):
    """Insert until an error, which is returned; append the sequences of what was stored."""
    for number in range(2000):
        try:
            acknowledged.append(client.embed(Item(f"i{number}", title=f"text {number}", description="d" * 3000)).sequence)
        except ServiceError as error:
            return error
    raise AssertionError("the disk never was full")


@rounds(10)
def test_fault_disk_full_by_a_file_size_limit(tmp_path):
    with embedding_service(tmp_path) as (client, _):
        acknowledged = [client.embed(Item("first", title="first")).sequence]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, before[1]))
        try:
            error = insert_until_refused(client, acknowledged)
            assert len(acknowledged) > 10
            assert client.get("i5").sequence == acknowledged[6]
            assert client.embed(Item("first", title="first")).sequence == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
        assert error.retry_after == 1.0
        assert str(tmp_path) not in str(error)
        assert client.embed(Item("after", title="after")).sequence == acknowledged[-1] + 1
    assert verify_store(tmp_path).problems == []


@rounds(10)
def test_fault_disk_full_leaves_ranking_alone_and_heals_by_itself(tmp_path):
    """Both servers on one store, on a disk of 6 MB. With an LMDB map that is written in place this would be a SIGBUS."""
    with small_disk_at(tmp_path / "small") as disk:
        catalogue = make_catalogue(disk)
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (4 << 20))
        encoder = encoder_around(WideModel(), BUNDLE_FINGERPRINT)
        encoder = replace(encoder, dimensions=DIMENSION)
        with (
            serve_in_background(encoder, catalogue.store, settings_with()) as listening,
            client_of(listening) as client,
            RankingServer(catalogue.bundle, catalogue.store, free_port_settings()) as ranking,
            RankingClient(ranking.address, timeout=PATIENCE, retry=RetryPolicy(attempts=1)) as ranks,
        ):
            acknowledged = []
            error = insert_until_refused(client, acknowledged)
            assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
            assert error.retry_after == 1.0
            assert len(acknowledged) > 20
            for _ in range(20):
                assert len(ranks.rank(["item-1", "i3"], top_k=20).items) == 20
            # What was acknowledged is ranked, and nothing after it.
            assert rank_from(ranks, acknowledged[-1]).sequence == acknowledged[-1]
            ballast.unlink()
            stored = client.embed(Item("after", title="after"))
            assert stored.sequence == acknowledged[-1] + 1
            assert not rank_from(ranks, stored.sequence, ["after"]).unknown_item_ids
        assert verify_store(catalogue.store).problems == []
