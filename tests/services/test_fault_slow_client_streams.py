"""Bulk streams of slow or greedy clients: what they hold of a real server's memory is bounded, and nobody waits for them."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from embedding_fixture import ControlledModel, measured_service
from embedding_server_process import server_process
from metrics_page import series, value
from patience import PATIENCE, wait_until
from unread_stream import UnreadStream

from llmgr_core.data.item import Item
from services.client import EmbeddedItem
from services.embedding.byte_budget import ByteBudget
from services.load.process_usage import memory

LIMIT = 64 << 10
STREAM_ITEMS = 100


def test_fault_slow_client_the_budget_is_never_overdrawn_nor_lost():
    """Random sizes, many of them too large for it, and every third one given up while it waits or works."""

    async def scene() -> None:
        random_number = random.Random(7)
        budget, finished = ByteBudget(LIMIT), 0

        async def work(size: int) -> None:
            nonlocal finished
            share = await budget.take(size)
            try:
                assert 0 <= budget.taken <= LIMIT
                for _ in range(random_number.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                budget.give_back(share)
            finished += 1

        tasks = [asyncio.create_task(work(random_number.randrange(2 * LIMIT))) for _ in range(600)]
        for task in tasks[::3]:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
        assert finished >= 400
        assert budget.taken == 0

    asyncio.run(scene())


def test_fault_slow_client_who_came_first_gets_room_first():
    async def scene() -> None:
        budget, order = ByteBudget(LIMIT), []
        first = await budget.take(LIMIT // 2)

        async def take(name: str, size: int) -> None:
            order.append((name, await budget.take(size)))

        tasks = [asyncio.create_task(take("large", 10 * LIMIT)), asyncio.create_task(take("small", 1))]
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == []
        budget.give_back(first)
        await tasks[0]
        budget.give_back(LIMIT)
        await tasks[1]
        assert order == [("large", LIMIT), ("small", 1)]

    asyncio.run(scene())


@pytest.mark.parametrize("size", [10_000, 100_000], ids=["several fit", "none fits"])
def test_fault_slow_client_streams_together_have_no_more_in_work_than_the_budget(tmp_path, size):
    """Four streams, while the model stands still; then all goes through, and no item fails."""
    each, streams = 25, 4
    in_work = max(LIMIT // (size + 100), 1)
    model = ControlledModel()
    model.running.clear()
    with measured_service(tmp_path, model, f"embed.max_stream_bytes={LIMIT}") as (client, _, measured):

        def waiting() -> float:
            return measured("queued_texts") + sum(len(batch) for batch in model.batches)

        def embed_all(stream: int) -> list[object]:
            items = (Item(f"{stream}-{number}", title=f"{stream}-{number} {'x' * size}") for number in range(each))
            return list(client.embed_many(items))

        with ThreadPoolExecutor(streams) as pool:
            outcomes = [pool.submit(embed_all, stream) for stream in range(streams)]
            try:
                wait_until(lambda: waiting() >= in_work)
                # Time for further items to come in, if nothing held them back.
                for _ in range(20):
                    assert waiting() == in_work
                    measured("sequence")
            finally:
                model.running.set()
            finished = [one for stream in outcomes for one in stream.result()]
        assert len(finished) == streams * each
        assert all(isinstance(one, EmbeddedItem) for one in finished)


def test_fault_slow_client_that_never_reads_its_outcomes_is_not_read_further(tmp_path: Path):
    """Its application sends and sends; nothing that it is answered is ever taken from the wire."""
    overrides = ("embed.metrics_port=0", f"embed.max_stream_items={STREAM_ITEMS}")
    with server_process(tmp_path / "store", *overrides) as (process, client, metrics_port):

        def running() -> float:
            return value(series(metrics_port), "llmgr_embedding_calls_running", method="EmbedItems")

        client.embed(Item("warm", title="warm"))
        before = memory(process.pid).resident
        with UnreadStream(client.address) as stream:
            sent = stream.send_until_it_stops(Item("unread", title="x" * 2000), most=64 << 20)
            assert sent < 64 << 20
            assert running() == 1
            assert memory(process.pid).resident - before < 100 << 20
            # Whoever reads gets theirs.
            outcomes = list(client.embed_many(Item(f"other-{number}", title="y" * 2000) for number in range(600)))
            assert all(isinstance(one, EmbeddedItem) for one in outcomes)
            # The first item, the stream's, 600 and this one; gRPC may have taken an outcome or two off the server's hands.
            assert client.embed(Item("single", title="single")).sequence <= 1 + STREAM_ITEMS + 4 + 600 + 1
        wait_until(lambda: running() == 0)
