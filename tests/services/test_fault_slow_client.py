"""A client that sends and does not read: what the server takes from it, and holds for it, is bounded."""

from __future__ import annotations

import asyncio

import pytest

from services.contract import embedding_service_pb2 as messages
from services.embedding.byte_budget import ByteBudget
from services.embedding.item_stream import answer_stream


@pytest.mark.parametrize("at_a_time", [20, pytest.param(5000, marks=pytest.mark.slow)])
def test_fault_slow_client_is_not_read_further_than_the_limit_of_a_stream(at_a_time):
    """Without the semaphore of answer_stream all that the client can send is read, embedded and kept."""

    async def scene() -> None:
        sent = 0

        async def client():
            nonlocal sent
            while True:
                sent += 1
                assert sent < 2 * at_a_time + 1000
                yield messages.EmbedItemsRequest(item={"item_id": f"i{sent}", "title": "x"}).SerializeToString()
                await asyncio.sleep(0)

        async def embed(request):
            return messages.EmbedItemResponse(item_id=request.item.item_id)

        replies = answer_stream(client(), embed, at_a_time, ByteBudget(1 << 20))
        assert (await anext(replies)).embedded.item_id == "i1"
        for _ in range(100 * at_a_time):
            await asyncio.sleep(0)
        # One more than the limit was taken from the stream and waits for room.
        assert sent == at_a_time + 1
        for number in range(2, 50):
            assert (await anext(replies)).embedded.item_id == f"i{number}"
        assert sent <= 49 + at_a_time + 1
        await replies.aclose()

    asyncio.run(scene())
