"""A client that sends and does not read: what the server takes from it, and holds for it, is bounded."""

from __future__ import annotations

import asyncio

from services.contract import embedding_service_pb2 as messages
from services.embedding.item_stream import answer_stream

AT_A_TIME = 20


def test_fault_slow_client_is_not_read_further_than_the_limit_of_a_stream():
    """Without the semaphore of answer_stream all that the client can send is read, embedded and kept."""

    async def scene() -> None:
        sent = 0

        async def client():
            nonlocal sent
            while True:
                sent += 1
                assert sent < 1000
                yield messages.EmbedItemsRequest(item={"item_id": f"i{sent}", "title": "x"}).SerializeToString()
                await asyncio.sleep(0)

        async def embed(request):
            return messages.EmbedItemResponse(item_id=request.item.item_id)

        replies = answer_stream(client(), embed, AT_A_TIME)
        assert (await anext(replies)).embedded.item_id == "i1"
        for _ in range(2000):
            await asyncio.sleep(0)
        # One more than the limit was taken from the stream and waits for room.
        assert sent == AT_A_TIME + 1
        for number in range(2, 50):
            assert (await anext(replies)).embedded.item_id == f"i{number}"
        assert sent <= 49 + AT_A_TIME + 1
        await replies.aclose()

    asyncio.run(scene())
