"""Client of the embedding service."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import grpc

from llmgr_core.data.item import Item
from services.client.connection import Connection
from services.client.conversion import embedded_item
from services.client.errors import ServiceError
from services.client.item_feed import ItemFeed
from services.client.replies import change, deleted_item, embedding_info, stored_item, stream_outcome
from services.client.results import Change, DeletedItem, EmbeddedItem, EmbeddingInfo, RejectedItem, StoredItem
from services.client.resumption import Resumption
from services.client.service_connections import EmbeddingConnection
from services.contract import embedding_service_pb2 as messages
from services.item_messages import item_message

PATIENCE = 60.0


class EmbeddingClient(EmbeddingConnection, Connection):
    """Inserts, reads and deletes items; see ServiceConnection for the arguments.

    Every method raises ServiceError where the server, or the way to it, fails.
    """

    def embed(self, item: Item, *, return_vector: bool = False, timeout: float | None = None) -> EmbeddedItem:
        """Insert an item or change its text; it is on disk when this returns.

        A call that was answered by silence is made again, so of two callers who edit one item at the same time either may win.
        """
        request = messages.EmbedItemRequest(item=item_message(item), return_vector=return_vector)
        return embedded_item(self._call(self._stub.EmbedItem, request, timeout))

    def embed_many(
        self,
        items: Iterable[Item],
        *,
        return_vector: bool = False,
        timeout: float | None = None,
        patience: float = PATIENCE,
    ) -> Iterator[EmbeddedItem | RejectedItem]:
        """Insert many items over one stream; outcomes come as items are finished, and ``index`` says which item each is of.

        A stream that breaks is taken up again with the items that have no outcome yet. Some of them may be stored already:
        those cost no language model and no write. Every item has exactly one outcome, unless an error ends the whole.

        Args:
            items: read as the server takes them, so that a long catalogue needs no memory. What it raises ends the stream and
                is raised here, after the outcomes of the items before it.
            timeout: seconds for the whole stream; None sets no limit.
            patience: seconds to go on looking for a server that is gone; 0 never takes a stream up again.
        """
        feed = ItemFeed(items, return_vector=return_vector)
        resumption = Resumption(self.retry, patience, timeout)
        stream = None
        try:
            while not feed.finished:
                try:
                    stream = self._stub.EmbedItems(
                        feed.requests(), timeout=resumption.remaining(), metadata=self.metadata or None
                    )
                    for reply in stream:
                        index = feed.settle(reply.index)
                        resumption.progressed()
                        yield stream_outcome(reply, index)
                    if not feed.finished:
                        raise ServiceError(grpc.StatusCode.UNAVAILABLE, "the server ended the stream before the last item")
                except (grpc.RpcError, ServiceError) as error:
                    time.sleep(resumption.pause_after(error))
        finally:
            feed.close()
            if stream is not None:
                stream.cancel()
        if feed.error is not None:
            raise feed.error

    def get(self, item_id: str, *, return_vector: bool = False, timeout: float | None = None) -> StoredItem:
        """An item as it was last inserted; ServiceError with code NOT_FOUND where there is none."""
        request = messages.GetItemRequest(item_id=item_id, return_vector=return_vector)
        return stored_item(self._call(self._stub.GetItem, request, timeout))

    def delete(self, item_id: str, *, timeout: float | None = None) -> DeletedItem:
        """Take an item out of every ranking."""
        return deleted_item(self._call(self._stub.DeleteItem, messages.DeleteItemRequest(item_id=item_id), timeout))

    def changes(
        self,
        after_sequence: int = 0,
        *,
        store_epoch: str = "",
        return_vector: bool = False,
        timeout: float | None = None,
        patience: float = 0.0,
    ) -> Iterator[Change]:
        """Follow the change log: what came after ``after_sequence``, then what comes next, until ``timeout`` seconds are over.

        Without a timeout it never ends; closing the iterator hangs up.

        Args:
            patience: seconds to go on looking for a server that is gone, then to follow from the last change that came. Give
                ``store_epoch`` too, so that another store is noticed.
        """
        resumption = Resumption(self.retry, patience, timeout)
        stream = None
        try:
            while True:
                request = messages.WatchChangesRequest(
                    after_sequence=after_sequence, store_epoch=store_epoch, return_vector=return_vector
                )
                try:
                    stream = self._stub.WatchChanges(request, timeout=resumption.remaining(), metadata=self.metadata or None)
                    for reply in stream:
                        after_sequence = reply.sequence
                        resumption.progressed()
                        yield change(reply)
                    return
                except (grpc.RpcError, ServiceError) as error:
                    time.sleep(resumption.pause_after(error))
        finally:
            if stream is not None:
                stream.cancel()

    def info(self, timeout: float | None = None) -> EmbeddingInfo:
        """What the server is and accepts."""
        return embedding_info(self._call(self._stub.GetInfo, messages.EmbeddingServiceGetInfoRequest(), timeout))
