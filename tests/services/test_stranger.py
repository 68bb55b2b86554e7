"""A client that knows nothing of this project but the address: it learns the services by reflection, inserts and ranks."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from patience import PATIENCE, wait_until


class Stranger:
    """Calls methods by name with plain dictionaries; every type comes from the server."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._database = ProtoReflectionDescriptorDatabase(self._channel)
        self._pool = DescriptorPool(self._database)

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def call(self, service: str, method: str, **fields):
        described = self._pool.FindServiceByName(service).FindMethodByName(method)
        request_class = message_factory.GetMessageClass(described.input_type)
        reply_class = message_factory.GetMessageClass(described.output_type)
        callable_ = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=reply_class.FromString,
        )
        return callable_(request_class(**fields), timeout=PATIENCE)

    def close(self) -> None:
        self._channel.close()


@pytest.fixture(scope="module")
def strangers(live_servers):
    """One stranger at each server."""
    both = Stranger(live_servers.embedding.address), Stranger(live_servers.ranking.address)
    yield both
    for stranger in both:
        stranger.close()


def test_the_services_are_listed(strangers):
    embedding, ranking = strangers
    assert {"llmgr.v1.EmbeddingService", "grpc.health.v1.Health"} <= embedding.services()
    assert {"llmgr.v1.RankingService", "grpc.health.v1.Health"} <= ranking.services()


def test_health_answers_by_its_standard_name(strangers):
    for stranger in strangers:
        # 1 is SERVING in the standard's own numbering.
        assert stranger.call("grpc.health.v1.Health", "Check").status == 1


def test_inserting_and_ranking_need_no_code_of_ours(strangers):
    embedding, ranking = strangers
    item = {"item_id": "stranger-1", "title": "Oak table", "categories": [{"names": ["Home", "Tables"]}]}
    inserted = embedding.call("llmgr.v1.EmbeddingService", "EmbedItem", item=item, return_vector=True)
    assert inserted.item_id == "stranger-1"
    assert len(inserted.vector.data) == 2 * inserted.vector.dimensions
    wait_until(lambda: ranking.call("llmgr.v1.RankingService", "GetInfo").sequence >= inserted.sequence)
    ranked = ranking.call(
        "llmgr.v1.RankingService",
        "RankSession",
        item_ids=["item-1", "item-2"],
        top_k=1000,
        min_sequence=inserted.sequence,
    )
    assert "stranger-1" in {one.item_id for one in ranked.items}
    assert ranked.items[0].HasField("probability")
    assert ranked.sequence >= inserted.sequence


def test_optional_fields_are_seen_as_optional(strangers):
    _, ranking = strangers
    service = "llmgr.v1.RankingService"
    hidden = ranking.call(service, "RankSession", item_ids=["item-1"], candidate_ids=["item-1"], include_seen=False)
    shown = ranking.call(service, "RankSession", item_ids=["item-1"], candidate_ids=["item-1"], include_seen=True)
    assert len(hidden.items) == 0
    assert [one.item_id for one in shown.items] == ["item-1"]
