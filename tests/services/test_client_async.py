"""The clients for an event loop do what those for threads do."""

from __future__ import annotations

import asyncio
import inspect

import grpc
import pytest
from embedding_fixture import ControlledModel, encoder_around, settings_with
from patience import PATIENCE

from llmgr_core.data.item import Item
from llmgr_core.errors import InputError, LlmgrError
from services.client import AsyncEmbeddingClient, AsyncRankingClient, EmbeddingClient, RankingClient, ServiceError
from services.embedding.background import serve_in_background


def test_rankings_are_those_of_the_client_for_threads(shared_server, ranking_client):
    async def rank():
        async with AsyncRankingClient(shared_server.address, timeout=PATIENCE) as client:
            many, info = await client.rank_many([["item-1"], ["item-2"]], top_k=5), await client.info()
            together = await asyncio.gather(*(client.rank([f"item-{number}"], top_k=3) for number in range(50)))
            return together, many, info

    together, many, info = asyncio.run(rank())
    assert [one.items for one in together] == [ranking_client.rank([f"item-{n}"], top_k=3).items for n in range(50)]
    assert many[1].items == ranking_client.rank(["item-2"], top_k=5).items
    assert info == ranking_client.info()


def test_items_are_inserted_read_followed_and_deleted(tmp_path):
    async def use(address):
        async with AsyncEmbeddingClient(address, timeout=PATIENCE) as client:
            stored = await client.embed(Item("a", title="lamp"), return_vector=True)
            assert (await client.get("a")).item.title == "lamp"
            outcomes = [one async for one in client.embed_many([Item("b", title="chair"), Item("c")])]
            deleted = await client.delete("a")
            changes = []
            async for change in client.changes(timeout=PATIENCE):
                changes.append((change.sequence, change.item_id, change.deleted))
                if len(changes) == 3:
                    break
            with pytest.raises(ServiceError) as raised:
                await client.get("a")
            return stored, outcomes, deleted, changes, raised.value, await client.info()

    with serve_in_background(encoder_around(ControlledModel()), tmp_path, settings_with()) as listening:
        stored, outcomes, deleted, changes, error, info = asyncio.run(use(listening.address))
    assert stored.vector.shape == (8,)
    assert sorted((one.index, one.item_id) for one in outcomes) == [(0, "b"), (1, "c")]
    assert deleted.existed
    assert changes == [(1, "a", False), (2, "b", False), (3, "a", True)]
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")
    assert (info.items, info.sequence) == (1, 3)


def test_a_refusal_names_its_field_and_is_not_retried(shared_server):
    async def rank():
        async with AsyncRankingClient(shared_server.address, timeout=PATIENCE) as client:
            await client.rank(["item-1"], top_k=5000)

    with pytest.raises(ServiceError) as raised:
        asyncio.run(rank())
    assert raised.value.violations[0].field == "top_k"
    assert raised.value.attempts == 1
    assert len(raised.value.request_id) == 16


def test_a_server_that_is_not_there_is_tried_again_within_the_deadline():
    async def rank():
        async with AsyncRankingClient("127.0.0.1:1", timeout=PATIENCE) as client:
            await client.rank(["item-1"])

    with pytest.raises(ServiceError, match="llmgr serve") as raised:
        asyncio.run(rank())
    assert raised.value.attempts == 4


def test_a_client_made_outside_of_an_event_loop_is_refused():
    with pytest.raises(LlmgrError, match="inside a coroutine"):
        AsyncRankingClient()


def test_an_error_of_an_asynchronous_source_reaches_the_caller(tmp_path):
    async def source():
        yield Item("a", title="lamp")
        raise InputError("line 2 is no item")

    async def use(address):
        async with AsyncEmbeddingClient(address) as client:
            return [one async for one in client.embed_many(source())]

    with (
        serve_in_background(encoder_around(ControlledModel()), tmp_path, settings_with()) as listening,
        pytest.raises(InputError, match="line 2"),
    ):
        asyncio.run(use(listening.address))


@pytest.mark.parametrize(("threads", "loop"), [(EmbeddingClient, AsyncEmbeddingClient), (RankingClient, AsyncRankingClient)])
def test_both_kinds_of_client_have_the_same_methods_with_the_same_parameters(threads, loop):
    for name, method in inspect.getmembers(threads, inspect.isfunction):
        if name.startswith("_") and name != "__init__":
            continue
        ours, theirs = inspect.signature(method).parameters, inspect.signature(getattr(loop, name)).parameters
        assert list(ours) == list(theirs), name
        assert [one.default for one in ours.values()] == [one.default for one in theirs.values()], name
