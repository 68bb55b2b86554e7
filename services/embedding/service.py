"""The methods of EmbeddingService."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from llmgr_core import __version__
from llmgr_core.settings import Settings
from llmgr_core.store import Operation, StoreWriter, fingerprint_key
from llmgr_core.store.item_encoder import ItemEncoder
from llmgr_core.store.item_record import decode_item
from services.contract import embedding_service_pb2 as messages
from services.contract import timing_pb2, vector_pb2
from services.embedding.background_work import BackgroundWork
from services.embedding.byte_budget import ByteBudget
from services.embedding.commit_queue import CommitQueue
from services.embedding.insertion import Inserter, Insertion, ServedEncoder
from services.embedding.item_stream import answer_stream
from services.embedding.metrics import EmbeddingMetrics
from services.embedding.text_queue import TextQueue
from services.embedding.validation import require_epoch, valid_item, valid_item_id
from services.item_messages import item_message
from services.observability.versions import Versions
from services.server.async_methods import Context, server_stream_method, stream_method, unary_method
from services.server.errors import RequestError
from services.server.observation import CallObserver

CONTRACT = messages.DESCRIPTOR.services_by_name["EmbeddingService"]
CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
WATCH_BLOCK = 256
# A watcher is woken by a commit; the timeout only bounds how long it takes to notice that the server stops.
WATCH_WAIT_S = 0.5


class EmbeddingService:
    """Everything behind the RPCs; make it on the running event loop.

    Args:
        encoder: cleaner and language model of the active encoder.
        store: opened for writing, with the encoder active.
        settings: limits from sections [embed] and [serve].
        observer: logs and counts the calls.
        other: an encoder under which every insert is written too; None where there is none.
        change_over: make ``other`` the active one as soon as every item has its vector.
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        store: StoreWriter,
        settings: Settings,
        observer: CallObserver,
        *,
        other: ItemEncoder | None = None,
        change_over: bool = False,
    ) -> None:
        self._store, self._settings, self._observer = store, settings, observer
        self.metrics = EmbeddingMetrics(observer.registry)
        self._served = [
            ServedEncoder(one, TextQueue(one, settings.embed.max_queued_texts, self.metrics))
            for one in (encoder, other)
            if one is not None
        ]
        self._commits = CommitQueue(store, settings.embed.commit_group, self.metrics)
        self._inserter = Inserter(self._served, store, self._commits, self.metrics, settings.embed.max_call_bytes)
        self._background = BackgroundWork(
            self._inserter,
            self._served[-1] if other and change_over else None,
            store,
            self._commits,
            settings.embed,
            self.metrics,
        )
        self.metrics.queued.set_function(lambda: sum(one.texts.waiting() for one in self._served))
        self._stream_bytes = ByteBudget(settings.embed.max_stream_bytes)
        self._stopping = False
        self.metrics.sequence.set(store.sequence())
        self.metrics.damaged.set_function(lambda: store.damaged_count)
        observer.registry.register(Versions("embedding", self._versions))

    def methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Handlers by method name."""
        observer = self._observer
        return {
            "EmbedItem": unary_method("EmbedItem", messages.EmbedItemRequest, self._embed_item, observer),
            "EmbedItems": stream_method("EmbedItems", self._embed_items, observer),
            "GetItem": unary_method("GetItem", messages.GetItemRequest, self._get_item, observer),
            "DeleteItem": unary_method("DeleteItem", messages.DeleteItemRequest, self._delete_item, observer),
            "WatchChanges": server_stream_method("WatchChanges", messages.WatchChangesRequest, self._watch, observer),
            "GetInfo": unary_method("GetInfo", messages.EmbeddingServiceGetInfoRequest, self._get_info, observer),
        }

    def stop_watchers(self) -> None:
        """End every WatchChanges, which would go on for ever."""
        self._stopping = True

    async def close(self) -> None:
        """Stop the threads, after the server has stopped."""
        await self._background.close()
        for served in self._served:
            await served.texts.close()
        await self._commits.close()

    async def embed(
        self, request: messages.EmbedItemRequest | messages.EmbedItemsRequest, *, bulk: bool
    ) -> messages.EmbedItemResponse:
        """Serve one item of EmbedItem, or of a stream."""
        started = time.perf_counter_ns()
        if not request.HasField("item"):
            request.item.SetInParent()
        item = valid_item(
            request.item,
            max_id_bytes=self._settings.embed.max_item_id_bytes,
            max_text_bytes=self._settings.embed.max_text_bytes,
        )
        insertion = await self._inserter.insert(item, bulk=bulk)
        return messages.EmbedItemResponse(
            item_id=item.item_id,
            model_version=insertion.fingerprint,
            sequence=insertion.sequence,
            cached=insertion.cached,
            vector=_vector_message(insertion.vector) if request.return_vector else None,
            timing=_timing(started, insertion),
        )

    async def _embed_item(self, request: messages.EmbedItemRequest, context: Context) -> messages.EmbedItemResponse:
        return await self.embed(request, bulk=False)

    async def _embed_items(self, raw: AsyncIterator[bytes], context: Context) -> AsyncIterator[messages.EmbedItemsResponse]:
        max_items = self._settings.embed.max_stream_items
        replies = answer_stream(raw, lambda request: self.embed(request, bulk=True), max_items, self._stream_bytes)
        async for reply in replies:
            # The stream itself ends with OK whatever becomes of its items.
            self.metrics.stream_items.labels(CODE_NAMES[reply.failure.code]).inc()
            yield reply

    async def _get_item(self, request: messages.GetItemRequest, context: Context) -> messages.GetItemResponse:
        item_id = valid_item_id(request.item_id, "item_id", self._settings.embed.max_item_id_bytes)
        stored = self._store.get_item(item_id)
        if stored is None and self._store.is_damaged(item_id):
            raise RequestError(
                grpc.StatusCode.DATA_LOSS, "the item's record is damaged; insert the item again", "DAMAGED_RECORD"
            )
        if stored is None or stored.deleted:
            raise RequestError(grpc.StatusCode.NOT_FOUND, "no item with this id is in the store", "ITEM_NOT_FOUND")
        vector = self._vector_of(stored.texts)
        reply = messages.GetItemResponse(
            item=item_message(decode_item(item_id, stored.record)),
            model_version="" if vector is None else self._encoder.fingerprint,
            sequence=stored.sequence,
            vector=_vector_message(vector) if request.return_vector and vector is not None else None,
        )
        reply.updated_at.FromNanoseconds(stored.updated_ns)
        return reply

    async def _delete_item(self, request: messages.DeleteItemRequest, context: Context) -> messages.DeleteItemResponse:
        started = time.perf_counter_ns()
        item_id = valid_item_id(request.item_id, "item_id", self._settings.embed.max_item_id_bytes)
        written = await self._inserter.delete(item_id)
        total = time.perf_counter_ns() - started
        return messages.DeleteItemResponse(
            item_id=item_id,
            sequence=written.sequence,
            existed=written.existed,
            timing=timing_pb2.Timing(total_ns=total, store_ns=total),
        )

    async def _watch(
        self, request: messages.WatchChangesRequest, context: Context
    ) -> AsyncIterator[messages.WatchChangesResponse]:
        require_epoch(request.store_epoch)
        if request.store_epoch and request.store_epoch != self._store.epoch:
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "the sequence is one of another store; start again from 0",
                "OTHER_STORE",
                field="store_epoch",
                metadata={"store_epoch": self._store.epoch},
            )
        after, newest = request.after_sequence, self._store.sequence()
        if after > newest:
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the store has no change {after} yet; its newest is {newest}",
                "SEQUENCE_AHEAD",
                field="after_sequence",
                metadata={"sequence": str(newest)},
            )
        fingerprints = {fingerprint_key(one.fingerprint): one.fingerprint for one in self._store.encoders()}
        while not self._stopping:
            block = self._store.changes_block(after, WATCH_BLOCK)
            head = self._store.sequence() if block else 0
            for change in block:
                reply = messages.WatchChangesResponse(sequence=change.sequence, item_id=change.item_id, head_sequence=head)
                if change.operation is Operation.DELETE:
                    reply.type = messages.CHANGE_TYPE_DELETED
                else:
                    reply.type = messages.CHANGE_TYPE_UPSERTED
                    reply.model_version = fingerprints.get(change.fingerprint_key, "")
                    if request.return_vector and (stored := self._store.get_item(change.item_id)) is not None:
                        vector = None if stored.deleted else self._vector_of(stored.texts)
                        if vector is not None:
                            reply.vector.CopyFrom(_vector_message(vector))
                yield reply
                after = change.sequence
            if not block:
                await self._commits.next_commit(WATCH_WAIT_S)
        raise RequestError(grpc.StatusCode.UNAVAILABLE, "the server is stopping; ask another, or again", "STOPPING")

    async def _get_info(
        self, request: messages.EmbeddingServiceGetInfoRequest, context: Context
    ) -> messages.EmbeddingServiceGetInfoResponse:
        counts = self._store.counts()
        return messages.EmbeddingServiceGetInfoResponse(
            server_version=__version__,
            model_version=self._encoder.fingerprint,
            engine=self._encoder.name,
            dimensions=self._encoder.dimensions,
            store_epoch=self._store.epoch,
            sequence=self._store.sequence(),
            items=counts["live"],
            vectors=counts["vectors"],
            limits=messages.EmbeddingLimits(
                max_text_bytes=self._settings.embed.max_text_bytes,
                max_item_id_bytes=self._settings.embed.max_item_id_bytes,
                max_message_bytes=self._settings.serve.max_request_bytes,
                max_queued_texts=self._settings.embed.max_queued_texts,
                max_stream_items=self._settings.embed.max_stream_items,
            ),
        )

    @property
    def _encoder(self) -> ItemEncoder:
        return self._inserter.active.encoder

    def _versions(self) -> dict[str, str]:
        fingerprint = self._encoder.fingerprint
        return {"model_version": fingerprint, "encoder_version": fingerprint, "store_epoch": self._store.epoch}

    def _vector_of(self, texts: Mapping[bytes, bytes]) -> npt.NDArray[np.float16] | None:
        key = texts.get(fingerprint_key(self._encoder.fingerprint))
        return None if key is None else self._store.find_vector(self._encoder.fingerprint, key)


def _vector_message(vector: npt.NDArray[np.float16]) -> vector_pb2.Vector:
    data = vector.astype("<f2", copy=False).tobytes()
    return vector_pb2.Vector(data=data, type=vector_pb2.VECTOR_TYPE_FLOAT16, dimensions=vector.size)


def _timing(started: int, insertion: Insertion) -> timing_pb2.Timing:
    return timing_pb2.Timing(
        total_ns=time.perf_counter_ns() - started,
        queue_ns=insertion.queue_ns,
        model_ns=insertion.model_ns,
        store_ns=insertion.store_ns,
    )
