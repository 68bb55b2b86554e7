"""Client of the embedding service for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable

import grpc

from llmgr_core.data.item import Item
from services.client.async_connection import AsyncConnection
from services.client.async_item_feed import AsyncItemFeed
from services.client.conversion import embedded_item
from services.client.embedding_client import PATIENCE
from services.client.errors import ServiceError
from services.client.replies import change, deleted_item, embedding_info, stored_item, stream_outcome
from services.client.results import Change, DeletedItem, EmbeddedItem, EmbeddingInfo, RejectedItem, StoredItem
from services.client.resumption import Resumption
from services.client.service_connections import EmbeddingConnection
from services.contract import embedding_service_pb2 as messages
from services.item_messages import item_message


class AsyncEmbeddingClient(EmbeddingConnection, AsyncConnection):
    """As EmbeddingClient, method by method, for one event loop."""

    async def embed(self, item: Item, *, return_vector: bool = False, timeout: float | None = None) -> EmbeddedItem:
        """See EmbeddingClient.embed."""
        request = messages.EmbedItemRequest(item=item_message(item), return_vector=return_vector)
        return embedded_item(await self._call(self._stub.EmbedItem, request, timeout))

    async def embed_many(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        return_vector: bool = False,
        timeout: float | None = None,
        patience: float = PATIENCE,
    ) -> AsyncIterator[EmbeddedItem | RejectedItem]:
        """See EmbeddingClient.embed_many.

        Args:
            items: a plain iterable is read on the event loop; one that waits for something should be asynchronous.
        """
        feed = AsyncItemFeed(items, return_vector=return_vector)
        resumption = Resumption(self.retry, patience, timeout)
        stream = None
        try:
            while not feed.finished:
                try:
                    stream = self._stub.EmbedItems(
                        feed.requests(), timeout=resumption.remaining(), metadata=self.metadata or None
                    )
                    async for reply in stream:
                        index = feed.settle(reply.index)
                        resumption.progressed()
                        yield stream_outcome(reply, index)
                    if not feed.finished:
                        raise ServiceError(grpc.StatusCode.UNAVAILABLE, "the server ended the stream before the last item")
                except (grpc.RpcError, ServiceError) as error:
                    await asyncio.sleep(resumption.pause_after(error))
        finally:
            feed.close()
            if stream is not None:
                stream.cancel()
        if feed.error is not None:
            raise feed.error

    async def get(self, item_id: str, *, return_vector: bool = False, timeout: float | None = None) -> StoredItem:
        """See EmbeddingClient.get."""
        request = messages.GetItemRequest(item_id=item_id, return_vector=return_vector)
        return stored_item(await self._call(self._stub.GetItem, request, timeout))

    async def delete(self, item_id: str, *, timeout: float | None = None) -> DeletedItem:
        """See EmbeddingClient.delete."""
        return deleted_item(await self._call(self._stub.DeleteItem, messages.DeleteItemRequest(item_id=item_id), timeout))

    async def changes(
        self,
        after_sequence: int = 0,
        *,
        store_epoch: str = "",
        return_vector: bool = False,
        timeout: float | None = None,
        patience: float = 0.0,
    ) -> AsyncIterator[Change]:
        """See EmbeddingClient.changes."""
        resumption = Resumption(self.retry, patience, timeout)
        stream = None
        try:
            while True:
                request = messages.WatchChangesRequest(
                    after_sequence=after_sequence, store_epoch=store_epoch, return_vector=return_vector
                )
                try:
                    stream = self._stub.WatchChanges(request, timeout=resumption.remaining(), metadata=self.metadata or None)
                    async for reply in stream:
                        after_sequence = reply.sequence
                        resumption.progressed()
                        yield change(reply)
                    return
                except (grpc.RpcError, ServiceError) as error:
                    await asyncio.sleep(resumption.pause_after(error))
        finally:
            if stream is not None:
                stream.cancel()

    async def info(self, timeout: float | None = None) -> EmbeddingInfo:
        """See EmbeddingClient.info."""
        return embedding_info(await self._call(self._stub.GetInfo, messages.EmbeddingServiceGetInfoRequest(), timeout))
