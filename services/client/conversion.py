"""From the contract's messages to the client's results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from llmgr_core.errors import InputError
from services.client.results import EmbeddedItem, RankedItem, RankedSession, Timing
from services.contract import embedding_service_pb2, ranking_service_pb2, timing_pb2, vector_pb2

NANOSECONDS_PER_MILLISECOND = 1e6
NUMBER_TYPES: dict[int, np.dtype[Any]] = {
    vector_pb2.VECTOR_TYPE_FLOAT16: np.dtype("<f2"),
    vector_pb2.VECTOR_TYPE_FLOAT32: np.dtype("<f4"),
}


def vector_from_message(message: vector_pb2.Vector) -> npt.NDArray[np.float32] | None:
    """float32 [D], or None for an empty vector.

    Raises:
        InputError: its type is unknown, or its length contradicts its bytes.
    """
    if not message.data:
        return None
    number = NUMBER_TYPES.get(message.type)
    if number is None or len(message.data) != number.itemsize * message.dimensions:
        raise InputError(
            f"the server sent {len(message.data)} bytes for {message.dimensions} numbers of type {message.type}",
            "update the client",
        )
    return np.frombuffer(message.data, dtype=number).astype(np.float32)


def timing_from_message(message: timing_pb2.Timing) -> Timing:
    parts = (message.total_ns, message.queue_ns, message.model_ns, message.store_ns)
    stages = (message.encode_ns, message.score_ns, message.select_ns)
    return Timing(*(part / NANOSECONDS_PER_MILLISECOND for part in (*parts, *stages)))


def ranked_session(message: ranking_service_pb2.RankSessionResponse) -> RankedSession:
    return RankedSession(
        items=tuple(
            RankedItem(one.item_id, one.score, one.probability if one.HasField("probability") else None)
            for one in message.items
        ),
        unknown_item_ids=tuple(message.unknown_item_ids),
        model_version=message.model_version,
        sequence=message.sequence,
        fallback=message.fallback,
        timing=timing_from_message(message.timing),
    )


def embedded_item(message: embedding_service_pb2.EmbedItemResponse, index: int = 0) -> EmbeddedItem:
    return EmbeddedItem(
        item_id=message.item_id,
        model_version=message.model_version,
        sequence=message.sequence,
        cached=message.cached,
        timing=timing_from_message(message.timing),
        vector=vector_from_message(message.vector),
        index=index,
    )


def plain_fields(message: Message) -> dict[str, Any]:
    """Every field of a flat message by name, unset ones included."""
    return {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
