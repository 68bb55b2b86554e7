"""Client of the embedding service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import grpc

from llmgr_core.data.item import Item
from services.client.calls import RetryPolicy, call_with_retries
from services.client.connection import Connection
from services.client.conversion import embedded_item, plain_fields, vector_from_message
from services.client.errors import ServiceError
from services.client.results import Change, DeletedItem, EmbeddedItem, EmbeddingInfo, RejectedItem, StoredItem
from services.client.security import ClientSecurity
from services.contract import embedding_service_pb2 as messages
from services.contract import embedding_service_pb2_grpc
from services.item_messages import item_from_message, item_message


class EmbeddingClient(Connection):
    """Inserts, reads and deletes items; see Connection for the arguments.

    Every method raises ServiceError where the server, or the way to it, fails.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        security: ClientSecurity | None = None,
    ) -> None:
        super().__init__(
            address,
            embedding_service_pb2_grpc.EmbeddingServiceStub,
            timeout=timeout,
            retry=retry,
            credentials=credentials,
            metadata=metadata,
            security=security,
        )

    def embed(self, item: Item, *, return_vector: bool = False, timeout: float | None = None) -> EmbeddedItem:
        """Insert an item or change its text; it is on disk when this returns."""
        request = messages.EmbedItemRequest(item=item_message(item), return_vector=return_vector)
        return embedded_item(
            call_with_retries(self._stub.EmbedItem, request, timeout or self.timeout, self.retry, self.metadata)
        )

    def embed_many(
        self, items: Iterable[Item], *, return_vector: bool = False, timeout: float | None = None
    ) -> Iterator[EmbeddedItem | RejectedItem]:
        """Insert many items over one stream; outcomes come as items are finished, and ``index`` says which item each is of.

        A stream is not retried: what was yielded is stored, the rest can be sent again.

        Args:
            items: read as the server takes them, so that a long catalogue needs no memory. What it raises ends the stream and
                is raised here, after the outcomes of the items before it.
            timeout: seconds for the whole stream; None sets no limit.
        """
        failed: list[Exception] = []

        def requests() -> Iterator[messages.EmbedItemsRequest]:
            try:
                for item in items:
                    yield messages.EmbedItemsRequest(item=item_message(item), return_vector=return_vector)
            except Exception as error:
                # Raised in gRPC's thread it would reach the caller as a nameless UNKNOWN; the stream ends here instead.
                failed.append(error)

        try:
            for reply in self._stub.EmbedItems(requests(), timeout=timeout, metadata=self.metadata or None):
                if reply.WhichOneof("outcome") == "embedded":
                    yield embedded_item(reply.embedded, reply.index)
                else:
                    failure = reply.failure
                    yield RejectedItem(reply.index, failure.item_id, status_name(failure.code), failure.message, failure.field)
        except grpc.RpcError as error:
            raise ServiceError.from_call(error) from None
        if failed:
            raise failed[0]

    def get(self, item_id: str, *, return_vector: bool = False, timeout: float | None = None) -> StoredItem:
        """An item as it was last inserted; ServiceError with code NOT_FOUND where there is none."""
        request = messages.GetItemRequest(item_id=item_id, return_vector=return_vector)
        reply = call_with_retries(self._stub.GetItem, request, timeout or self.timeout, self.retry, self.metadata)
        return StoredItem(
            item=item_from_message(reply.item),
            model_version=reply.model_version,
            sequence=reply.sequence,
            updated_at=reply.updated_at.ToNanoseconds() / 1e9,
            vector=vector_from_message(reply.vector),
        )

    def delete(self, item_id: str, *, timeout: float | None = None) -> DeletedItem:
        """Take an item out of every ranking."""
        request = messages.DeleteItemRequest(item_id=item_id)
        reply = call_with_retries(self._stub.DeleteItem, request, timeout or self.timeout, self.retry, self.metadata)
        return DeletedItem(reply.item_id, reply.sequence, reply.existed)

    def changes(
        self,
        after_sequence: int = 0,
        *,
        store_epoch: str = "",
        return_vector: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Change]:
        """Follow the change log: what came after ``after_sequence``, then what comes next, until ``timeout`` seconds are over.

        Without a timeout it never ends; closing the iterator hangs up.
        """
        request = messages.WatchChangesRequest(
            after_sequence=after_sequence, store_epoch=store_epoch, return_vector=return_vector
        )
        stream = self._stub.WatchChanges(request, timeout=timeout, metadata=self.metadata or None)
        try:
            for reply in stream:
                yield Change(
                    sequence=reply.sequence,
                    item_id=reply.item_id,
                    deleted=reply.type == messages.CHANGE_TYPE_DELETED,
                    model_version=reply.model_version,
                    head_sequence=reply.head_sequence,
                    vector=vector_from_message(reply.vector),
                )
        except grpc.RpcError as error:
            raise ServiceError.from_call(error) from None
        finally:
            stream.cancel()

    def info(self, timeout: float | None = None) -> EmbeddingInfo:
        """What the server is and accepts."""
        request = messages.EmbeddingServiceGetInfoRequest()
        reply = call_with_retries(self._stub.GetInfo, request, timeout or self.timeout, self.retry, self.metadata)
        return EmbeddingInfo(**(plain_fields(reply) | {"limits": plain_fields(reply.limits)}))


def status_name(code: int) -> str:
    """Name of a gRPC status by its number, "UNKNOWN" for a number that gRPC does not define."""
    return next((one.name for one in grpc.StatusCode if one.value[0] == code), "UNKNOWN")
