"""An EmbedItems stream: several items at a time, replies as they are finished, bad items fail alone."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from services.contract import embedding_service_pb2 as messages
from services.embedding.byte_budget import ByteBudget
from services.server.errors import RequestError, internal_error, parse
from services.server.request_ids import request_id

log = logging.getLogger(__name__)
NAMED_ID_CHARACTERS = 128

Embed = Callable[[messages.EmbedItemsRequest], Awaitable[messages.EmbedItemResponse]]


async def answer_stream(
    raw: AsyncIterator[bytes], embed: Embed, max_items: int, budget: ByteBudget
) -> AsyncIterator[messages.EmbedItemsResponse]:
    """Embed what a stream brings.

    Args:
        raw: serialised EmbedItemsRequests.
        embed: serves one of them.
        max_items: items taken from the stream whose reply the client has not taken yet; so a client that does not read
            cannot fill the server's memory.
        budget: bytes of the items that all streams have in work. Given back with the item's outcome, before the client has
            taken it: so one that does not read holds nobody up.
    """
    replies: asyncio.Queue[messages.EmbedItemsResponse | None] = asyncio.Queue()
    room = asyncio.Semaphore(max_items)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(index: int, message: bytes) -> None:
        await replies.put(await _answer_one(index, message, embed))

    def given_back(share: int, done: asyncio.Task[None]) -> None:
        budget.give_back(share)

    async def read() -> None:
        index = 0
        async for message in raw:
            await room.acquire()
            share = await budget.take(len(message))
            task = asyncio.create_task(answer(index, message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(functools.partial(given_back, share))
            index += 1
        await asyncio.gather(*tasks)
        await replies.put(None)

    reader = asyncio.create_task(read())
    # A reader that fails (the client hung up in mid-stream) must end the stream of replies too.
    reader.add_done_callback(lambda done: replies.put_nowait(None) if done.cancelled() or done.exception() else None)
    try:
        while (reply := await replies.get()) is not None:
            yield reply
            room.release()
        await reader
    finally:
        for task in (reader, *tasks):
            task.cancel()


async def _answer_one(index: int, message: bytes, embed: Embed) -> messages.EmbedItemsResponse:
    item_id = ""
    try:
        request = parse(messages.EmbedItemsRequest, message)
        item_id = request.item.item_id
        return messages.EmbedItemsResponse(index=index, embedded=await embed(request))
    except RequestError as error:
        refused = error
    except Exception:
        identity = request_id(None)
        log.exception("unexpected error in an EmbedItems stream, request %s", identity)
        refused = internal_error(identity)
    code: grpc.StatusCode = refused.code
    failure = messages.EmbedItemsFailure(
        item_id=item_id[:NAMED_ID_CHARACTERS], code=code.value[0], message=refused.message, field=refused.field
    )
    return messages.EmbedItemsResponse(index=index, failure=failure)
