"""Streams of the clients are taken up again where they broke: every item has one outcome, every change comes once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from embedding_fixture import ControlledModel, client_of, encoder_around, settings_with
from patience import PATIENCE, free_port

from llmgr_core.data.item import Item
from llmgr_core.errors import InputError
from services.client import AsyncEmbeddingClient, EmbeddedItem, EmbeddingClient, RejectedItem, RetryPolicy, ServiceError
from services.client.item_feed import WINDOW, ItemFeed, Unsettled
from services.embedding.background import serve_in_background


@contextmanager
def server_process(store: Path, port: int):
    """An embedding server as a process, killed with -9 in the end."""
    program = Path(__file__).with_name("embedding_process.py")
    command = [sys.executable, str(program), str(store), f"serve.embedding_port={port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            json.loads(process.stdout.readline())
            yield
        finally:
            process.kill()


@contextmanager
def served(store: Path, settings):
    """A client of a server in this process."""
    server = serve_in_background(encoder_around(ControlledModel()), store, settings)
    with server as listening, EmbeddingClient(listening.address, timeout=PATIENCE) as client:
        yield client


def items_of(count: int) -> list[Item]:
    return [Item(f"i{number}", title=f"text {number}") for number in range(count)]


@pytest.mark.slow
def test_a_stream_outlives_a_server_that_is_killed_and_started_again(tmp_path):
    port, count = free_port(), 3000
    outcomes: list[EmbeddedItem | RejectedItem] = []
    items = items_of(count)
    items[7] = Item("i7", title="<br>")
    with EmbeddingClient(f"127.0.0.1:{port}") as client:
        inserting = client.embed_many(items, patience=120.0)
        with server_process(tmp_path, port):
            outcomes += [next(inserting) for _ in range(50)]
        restarted = threading.Event()

        def go_on():
            outcomes.extend(inserting)
            restarted.set()

        reader = threading.Thread(target=go_on)
        reader.start()
        with server_process(tmp_path, port):
            assert restarted.wait(120.0)
            assert client.info().items == count - 1
        reader.join()
    assert sorted(one.index for one in outcomes) == list(range(count))
    refused = [one for one in outcomes if isinstance(one, RejectedItem)]
    assert [(one.index, one.item_id, one.code) for one in refused] == [(7, "i7", "INVALID_ARGUMENT")]
    assert all(one.item_id == f"i{one.index}" for one in outcomes)


def test_a_stream_without_patience_or_retries_ends_with_its_server(tmp_path):
    model = ControlledModel()
    for options in ({"patience": 0.0}, {"retry": RetryPolicy(attempts=1)}):
        with serve_in_background(encoder_around(model), tmp_path, settings_with("serve.drain_s=0.0")) as listening:
            client = EmbeddingClient(listening.address, retry=options.pop("retry", None))
            inserting = client.embed_many(endless(), **options)
            next(inserting)
        with client, pytest.raises(ServiceError):
            list(inserting)


def test_a_stream_that_its_own_client_closed_is_not_taken_up_again(tmp_path):
    first = threading.Event()

    def follow(client):
        for _ in client.changes(patience=PATIENCE):
            first.set()

    with (
        serve_in_background(encoder_around(ControlledModel()), tmp_path, settings_with()) as listening,
        ThreadPoolExecutor(1) as pool,
    ):
        client = EmbeddingClient(listening.address, timeout=PATIENCE)
        client.embed(Item("a", title="rose"))
        following = pool.submit(follow, client)
        assert first.wait(PATIENCE)
        client.close()
        with pytest.raises(ServiceError) as raised:
            following.result(PATIENCE)
    assert (raised.value.code, raised.value.refused_unread) == (grpc.StatusCode.CANCELLED, False)


def endless():
    number = 0
    while True:
        number += 1
        yield Item(f"e{number}", title="the same")


def test_patience_ends(tmp_path):
    with EmbeddingClient("127.0.0.1:1") as client, pytest.raises(ServiceError, match="llmgr serve") as raised:
        list(client.embed_many(items_of(1), patience=0.4))
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


def test_the_timeout_of_a_stream_bounds_its_patience():
    started = time.monotonic()
    with EmbeddingClient("127.0.0.1:1") as client, pytest.raises(ServiceError):
        list(client.embed_many(items_of(1), patience=600.0, timeout=0.5))
    assert time.monotonic() - started < PATIENCE


def test_an_error_of_the_source_comes_after_the_outcomes_before_it(tmp_path):
    def source():
        yield from items_of(3)
        raise InputError("line 4 is no item")

    outcomes = []
    with (
        serve_in_background(encoder_around(ControlledModel()), tmp_path, settings_with()) as listening,
        client_of(listening) as client,
        pytest.raises(InputError, match="line 4"),
    ):
        outcomes.extend(client.embed_many(source()))
    assert sorted(one.index for one in outcomes) == [0, 1, 2]


def test_everything_unsettled_is_sent_again_in_its_order():
    unsettled = Unsettled(return_vector=False)
    unsettled.begin_stream()
    for item in items_of(4):
        unsettled.add(item)
    assert [unsettled.send().item.item_id for _ in range(3)] == ["i0", "i1", "i2"]
    assert unsettled.settle(1) == 1
    unsettled.begin_stream()
    assert [unsettled.send().item.item_id for _ in range(3)] == ["i0", "i2", "i3"]
    assert unsettled.settle(1) == 2
    with pytest.raises(ServiceError, match="twice"):
        unsettled.settle(1)
    assert len(unsettled) == 2


def test_a_feed_holds_back_what_the_server_has_not_settled():
    read = 0

    def source():
        nonlocal read
        for item in items_of(2 * WINDOW):
            read += 1
            yield item

    feed = ItemFeed(source(), return_vector=False)
    requests = feed.requests()
    for _ in range(WINDOW):
        next(requests)
    waiting = threading.Thread(target=next, args=[requests])
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    assert read == WINDOW
    feed.settle(0)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert read == WINDOW + 1


def test_a_source_that_waits_is_not_asked_by_two_streams_at_a_time():
    asked, go_on = threading.Event(), threading.Event()

    def source():
        yield Item("first", title="a")
        asked.set()
        assert go_on.wait(2 * PATIENCE)
        yield Item("second", title="b")

    feed = ItemFeed(source(), return_vector=False)
    broken = feed.requests()
    next(broken)
    left_over: list[object] = []
    old = threading.Thread(target=lambda: left_over.extend(broken))
    old.start()
    assert asked.wait(PATIENCE)
    requests = feed.requests()
    assert next(requests).item.item_id == "first"
    got: list[str] = []
    new = threading.Thread(target=lambda: got.extend(one.item.item_id for one in requests))
    new.start()
    time.sleep(0.05)
    go_on.set()
    for thread in (old, new):
        thread.join(PATIENCE)
    assert got == ["second"]
    assert left_over == []


def test_changes_are_followed_over_a_restart_each_once(tmp_path):
    port = free_port()
    seen: list[int] = []
    first_part = threading.Event()

    def follow(epoch):
        with EmbeddingClient(f"127.0.0.1:{port}") as watcher:
            for change in watcher.changes(store_epoch=epoch, patience=PATIENCE, timeout=2 * PATIENCE):
                seen.append(change.sequence)
                if len(seen) == 5:
                    first_part.set()
                if len(seen) == 10:
                    return

    settings = settings_with(f"serve.embedding_port={port}")
    with served(tmp_path, settings) as client:
        watching = threading.Thread(target=follow, args=[client.info().store_epoch])
        watching.start()
        list(client.embed_many(items_of(5)))
        assert first_part.wait(PATIENCE)
    with served(tmp_path, settings) as client:
        list(client.embed_many(Item(f"n{number}", title="new") for number in range(5)))
        watching.join(PATIENCE)
    assert seen == list(range(1, 11))


def test_on_an_event_loop_a_stream_outlives_a_restart_and_reads_an_asynchronous_source(tmp_path):
    port, count = free_port(), 1500
    settings = settings_with(f"serve.embedding_port={port}", "serve.drain_s=0.0")

    async def source():
        for item in items_of(count):
            yield item
            await asyncio.sleep(0)

    async def insert(stop_first, start_second):
        outcomes = []
        async with AsyncEmbeddingClient(f"127.0.0.1:{port}") as client:
            async for outcome in client.embed_many(source(), patience=PATIENCE):
                outcomes.append(outcome)
                if len(outcomes) == 20:
                    await asyncio.to_thread(stop_first)
                    start_second()
        return outcomes

    def serve():
        context = serve_in_background(encoder_around(ControlledModel()), tmp_path, settings)
        context.__enter__()
        return lambda: context.__exit__(None, None, None)

    stops = [serve()]
    outcomes = asyncio.run(insert(stops[0], lambda: stops.append(serve())))
    stops[-1]()
    assert sorted(one.index for one in outcomes) == list(range(count))
    assert all(isinstance(one, EmbeddedItem) for one in outcomes)
