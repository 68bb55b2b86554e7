"""Replies of the contract as the clients' results, the same on threads and on an event loop."""

from __future__ import annotations

import grpc

from services.client.conversion import embedded_item, plain_fields, vector_from_message
from services.client.results import Change, DeletedItem, EmbeddedItem, EmbeddingInfo, RankingInfo, RejectedItem, StoredItem
from services.contract import embedding_service_pb2 as embedding
from services.contract import ranking_service_pb2 as ranking
from services.item_messages import item_from_message


def stored_item(reply: embedding.GetItemResponse) -> StoredItem:
    return StoredItem(
        item=item_from_message(reply.item),
        model_version=reply.model_version,
        sequence=reply.sequence,
        updated_at=reply.updated_at.ToNanoseconds() / 1e9,
        vector=vector_from_message(reply.vector),
    )


def deleted_item(reply: embedding.DeleteItemResponse) -> DeletedItem:
    return DeletedItem(reply.item_id, reply.sequence, reply.existed)


def change(reply: embedding.WatchChangesResponse) -> Change:
    return Change(
        sequence=reply.sequence,
        item_id=reply.item_id,
        deleted=reply.type == embedding.CHANGE_TYPE_DELETED,
        model_version=reply.model_version,
        head_sequence=reply.head_sequence,
        vector=vector_from_message(reply.vector),
    )


def stream_outcome(reply: embedding.EmbedItemsResponse, index: int) -> EmbeddedItem | RejectedItem:
    """What became of an item of a stream.

    Args:
        index: place of the item in what the caller gave, which is not its place in a stream that was taken up again.
    """
    if reply.WhichOneof("outcome") == "embedded":
        return embedded_item(reply.embedded, index)
    failure = reply.failure
    return RejectedItem(index, failure.item_id, status_name(failure.code), failure.message, failure.field)


def embedding_info(reply: embedding.EmbeddingServiceGetInfoResponse) -> EmbeddingInfo:
    return EmbeddingInfo(**(plain_fields(reply) | {"limits": plain_fields(reply.limits)}))


def ranking_info(reply: ranking.RankingServiceGetInfoResponse) -> RankingInfo:
    return RankingInfo(**(plain_fields(reply) | {"limits": plain_fields(reply.limits)}))


def status_name(code: int) -> str:
    """Name of a gRPC status by its number, "UNKNOWN" for a number that gRPC does not define."""
    return next((one.name for one in grpc.StatusCode if one.value[0] == code), "UNKNOWN")
