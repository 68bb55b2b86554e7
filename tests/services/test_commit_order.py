"""Callers that go away while the disk is slow."""

from __future__ import annotations

import asyncio
import threading

import pytest
from patience import PATIENCE
from prometheus_client import CollectorRegistry

from llmgr_core.store import Put, Written
from services.embedding.commit_queue import CommitQueue
from services.embedding.metrics import EmbeddingMetrics


class SlowStore:
    """A store whose write goes on until it is let go."""

    def __init__(self) -> None:
        self.writing, self.let_go = threading.Event(), threading.Event()
        self.written: list[str] = []

    def write(self, operations: list[Put]) -> list[Written]:
        self.writing.set()
        assert self.let_go.wait(2 * PATIENCE)
        self.written += [operation.item_id for operation in operations]
        return [Written(one.item_id, number, changed=True, existed=False) for number, one in enumerate(operations, start=1)]


async def cancelled_after(store: SlowStore, queue: CommitQueue) -> asyncio.Task[Written]:
    """A write that was cancelled while the store was busy with it."""
    task = asyncio.create_task(queue.write(Put("a", b"{}", ())))
    await asyncio.to_thread(store.writing.wait, PATIENCE)
    task.cancel()
    await asyncio.sleep(0.05)
    return task


def test_a_cancelled_caller_leaves_only_when_its_operation_is_on_the_disk():
    async def scene() -> None:
        store = SlowStore()
        queue = CommitQueue(store, 8, EmbeddingMetrics(CollectorRegistry()))
        task = await cancelled_after(store, queue)
        assert not task.done()  # the lock on the id, held around this call, is still held
        store.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store.written == ["a"]
        await queue.close()

    asyncio.run(scene())


def test_an_operation_whose_caller_left_before_the_writer_took_it_is_dropped():
    async def scene() -> None:
        store = SlowStore()
        queue = CommitQueue(store, 8, EmbeddingMetrics(CollectorRegistry()))
        first = asyncio.create_task(queue.write(Put("a", b"{}", ())))
        await asyncio.to_thread(store.writing.wait, PATIENCE)
        second = asyncio.create_task(queue.write(Put("b", b"{}", ())))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.wait({second}, timeout=PATIENCE)
        assert second.done()
        store.let_go.set()
        assert (await first).item_id == "a"
        await queue.close()
        assert store.written == ["a"]

    asyncio.run(scene())
