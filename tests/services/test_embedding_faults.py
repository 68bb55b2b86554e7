"""What the embedding server does with bad input, a broken model, a full disk and a hard end."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from embedding_fixture import (
    FINGERPRINT,
    ControlledModel,
    embedding_service,
    encoder_around,
    settings_with,
)
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from llmgr_core.data.item import Item
from llmgr_core.errors import LlmgrError
from llmgr_core.store import EmbeddingStore, StoreError, StoreLockedError, StoreWriter
from llmgr_core.store.verification import verify_store
from services.client import EmbeddedItem, EmbeddingClient, ServiceError
from services.client.calls import RetryPolicy
from services.contract import embedding_service_pb2 as messages
from services.contract import embedding_service_pb2_grpc
from services.embedding.background import serve_in_background

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with embedding_service(tmp_path_factory.mktemp("store")) as running:
        yield running


# -- bad input -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "field", "words"),
    [
        (Item("", title="rose"), "item.item_id", "empty"),
        (Item("a\0b", title="rose"), "item.item_id", "NUL"),
        (Item("é" * 257, title="rose"), "item.item_id", "514 bytes; at most 512"),
        (Item("a"), "item", "no text"),
        (Item("a", title="<br>"), "item", "no text is left"),
        (Item("a", title="ro\0se"), "item.title", "NUL"),
        (Item("a", attributes={"co\0lour": "red"}), "item.attributes", "NUL"),
        (Item("a", title="rose", categories=(("A",), ("B\0",))), "item.categories[1]", "NUL"),
        (Item("a", title="rose", description="x" * 1_000_000), "item.description", "more than 262144 bytes"),
        (Item("a", title="rose", attributes={f"k{n}": "v" for n in range(1001)}), "item.attributes", "1001 entries"),
        (Item("a", title="rose", categories=(("",) * 1001,)), "item.categories[0]", "1001 names"),
    ],
)
def test_a_bad_item_is_refused_by_field(shared, item, field, words):
    client, _ = shared
    with pytest.raises(ServiceError) as caught:
        client.embed(item)
    error = caught.value
    assert (error.code, error.reason) == (INVALID, "INVALID_FIELD")
    assert [one.field for one in error.violations] == [field]
    assert words in error.details


def test_nothing_of_a_refused_item_is_stored(shared):
    client, model = shared
    assert client.info().items == 0
    assert model.texts == ["warm up"] or not model.texts


@pytest.mark.parametrize("call", ["get", "delete"])
@pytest.mark.parametrize("item_id", ["", "a\0", "x" * 513])
def test_a_bad_id_is_refused_by_field(shared, call, item_id):
    client, _ = shared
    with pytest.raises(ServiceError) as caught:
        getattr(client, call)(item_id)
    assert (caught.value.code, caught.value.violations[0].field) == (INVALID, "item_id")


def test_a_request_without_an_item_is_refused(shared):
    client, _ = shared
    with grpc.insecure_channel(client.address) as channel:
        stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.EmbedItem(messages.EmbedItemRequest())
    assert caught.value.code() == INVALID


def test_text_that_is_not_utf8_is_refused_without_an_exceptions_words(shared):
    client, _ = shared
    item = b"\x0a\x01a\x12\x02\xff\xfe"
    raw = b"\x0a" + bytes([len(item)]) + item
    with grpc.insecure_channel(client.address) as channel:
        method = channel.unary_unary("/llmgr.v1.EmbeddingService/EmbedItem")
        with pytest.raises(grpc.RpcError) as caught:
            method(raw)
    assert caught.value.code() == INVALID
    assert "UTF-8" in caught.value.details()
    details = rpc_status.from_call(caught.value).details
    info = error_details_pb2.ErrorInfo()
    assert details[0].Unpack(info)
    assert (info.reason, info.domain) == ("MALFORMED_MESSAGE", "llmgr")


def test_a_message_beyond_the_limit_is_refused(tmp_path):
    with embedding_service(tmp_path, None, "serve.max_request_bytes=65536") as (client, _):
        with pytest.raises(ServiceError) as caught:
            client.embed(Item("a", title="x" * 100_000))
        assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.embed(Item("a", title="rose")).sequence == 1


# -- a model that fails --------------------------------------------------------------------------------------------------------


def test_nan_from_the_model_is_never_stored_and_takes_nobody_along(tmp_path, capsys):
    model = ControlledModel()
    model.broken = {"cursed words"}
    model.raising = {"explosive words"}
    with embedding_service(tmp_path, model) as (client, _):
        model.running.clear()
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(client.embed, Item("first", title="first"))
            assert model.entered.wait(5)
            good = [pool.submit(client.embed, Item(f"good {n}", title=f"good {n}")) for n in range(3)]
            bad = [pool.submit(client.embed, Item(word, title=f"{word} words")) for word in ("cursed", "explosive")]
            time.sleep(0.3)
            model.running.set()
            assert all(one.result().sequence for one in (first, *good))
            for one in bad:
                error = one.exception()
                assert isinstance(error, ServiceError)
                assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "MODEL_FAULT")
                assert "words" not in str(error)
        for item_id in ("cursed", "explosive"):
            with pytest.raises(ServiceError, match="NOT_FOUND"):
                client.get(item_id)
        assert client.info().vectors == 4
        # A model that has recovered is asked again.
        model.broken.clear()
        assert client.embed(Item("cursed", title="cursed words")).sequence == 5
    assert "secret text" not in capsys.readouterr().err


def test_an_unexpected_error_tells_the_client_only_where_to_look(tmp_path, monkeypatch):
    def fail(self, item_id):
        raise RuntimeError("secret path /etc/shadow")

    with embedding_service(tmp_path) as (client, _):
        monkeypatch.setattr("llmgr_core.store.reading.EmbeddingStore.get_item", fail)
        with grpc.insecure_channel(client.address) as channel:
            stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.GetItem(messages.GetItemRequest(item_id="a"), metadata=[("x-request-id", "find-me")])
        outcomes = list(client.embed_many([Item("a", title="rose")]))
        monkeypatch.undo()
        assert client.embed(Item("a", title="rose")).sequence == 1
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "find-me" in caught.value.details()
    assert "secret" not in str(caught.value)
    assert outcomes[0].code == "INTERNAL"
    assert "secret" not in outcomes[0].message


# -- starting ------------------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_an_error_that_names_it(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = settings_with(f"serve.embedding_port={port}")
        serving = serve_in_background(encoder_around(ControlledModel()), tmp_path, settings)
        with pytest.raises(LlmgrError, match=f"127.0.0.1:{port}"), serving:
            pass
    # Nothing was left behind: the store is free for the next try.
    StoreWriter.open(tmp_path).close()


def test_two_servers_cannot_share_a_port(tmp_path):
    with embedding_service(tmp_path / "one") as (client, _):
        port = client.address.rsplit(":", 1)[1]
        second = embedding_service(tmp_path / "two", None, f"serve.embedding_port={port}")
        with pytest.raises(LlmgrError, match=port), second:
            pass


def test_loopback_of_either_family_is_served(tmp_path):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with embedding_service(tmp_path, None, "serve.host=::1") as (client, _):
        assert client.address.startswith("[::1]:")
        assert client.embed(Item("a", title="rose")).sequence == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_not_let_in_without_tls(tmp_path, host):
    with pytest.raises(LlmgrError, match="plain text"), embedding_service(tmp_path, None, f"serve.host={host}"):
        pass


def test_a_store_that_is_being_written_is_refused_with_its_writer(tmp_path):
    writing = StoreWriter.open(tmp_path)
    with writing, pytest.raises(StoreLockedError, match=f"process {os.getpid()}"), embedding_service(tmp_path):
        pass


def test_the_store_of_another_model_is_refused_and_both_are_named(tmp_path):
    with embedding_service(tmp_path) as (client, _):
        client.embed(Item("a", title="rose"))
    other = encoder_around(ControlledModel(), fingerprint="e5" * 32, name="another model")
    named = rf"{FINGERPRINT[:12]} \(controlled\).*e5e5e5e5e5e5 \(another model\)"
    with pytest.raises(StoreError, match=named), serve_in_background(other, tmp_path, settings_with()):
        pass


# -- a full disk ---------------------------------------------------------------------------------------------------------------


def insert_until_refused(client, acknowledged):
    """Insert until an error, which is returned; append the sequences of what was stored."""
    for number in range(2000):
        try:
            acknowledged.append(client.embed(Item(f"i{number}", title=f"text {number}", description="d" * 3000)).sequence)
        except ServiceError as error:
            return error
    raise AssertionError("the disk never was full")


def test_a_full_disk_refuses_inserts_keeps_what_it_has_and_heals(tmp_path):
    with embedding_service(tmp_path) as (client, _):
        acknowledged = [client.embed(Item("first", title="first")).sequence]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, before[1]))
        try:
            error = insert_until_refused(client, acknowledged)
            assert len(acknowledged) > 10
            assert client.get("i5").sequence == acknowledged[6]
            assert client.embed(Item("first", title="first")).sequence == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
        assert error.retry_after == 1.0
        assert str(tmp_path) not in str(error)
        assert client.embed(Item("after", title="after")).sequence == acknowledged[-1] + 1
    assert verify_store(tmp_path).problems == []


# -- a process of its own ------------------------------------------------------------------------------------------------------


@contextmanager
def server_process(store, *overrides):
    """A server in a process of its own; yields the process, a client, and the port of its metrics page."""
    program = Path(__file__).with_name("embedding_process.py")
    command = [sys.executable, str(program), str(store), *overrides]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            ready = json.loads(process.stdout.readline())
            with EmbeddingClient(ready["address"], timeout=20.0, retry=RetryPolicy(attempts=1)) as client:
                yield process, client, ready["metrics_port"]
        finally:
            process.kill()


def metrics(port):
    """Text of a Prometheus page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
        return page.read().decode()


def watch_until_the_server_stops(client):
    with pytest.raises(ServiceError, match="stopping"):
        list(client.changes())


def test_sigterm_lets_calls_in_flight_finish_and_frees_the_store(tmp_path):
    with server_process(tmp_path, "serve.drain_s=60", "embed.metrics_port=0") as (process, client, metrics_port):
        watcher = threading.Thread(target=watch_until_the_server_stops, args=[client])
        watcher.start()
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(client.embed, Item(f"i{number}", title=f"slow {number}")) for number in range(4)]
            while 'calls_running{method="EmbedItem"} 4.0' not in metrics(metrics_port):
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert sorted(one.result().sequence for one in calls) == [1, 2, 3, 4]
        started = time.monotonic()
        # Well before the 60 s that calls in flight would have had: a watcher holds nothing up.
        assert process.wait(50) == 0
        assert time.monotonic() - started < 50.0
        watcher.join()
        log = process.stderr.read()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["method"] for line in lines if line.get("code") == "OK"} == {"EmbedItem"}
    assert "slow 1" not in log, "item texts are not for the log"
    with StoreWriter.open(tmp_path) as store:
        assert store.sequence() == 4


def insert_until_cut_off(client, number, acknowledged):
    """Insert until the server is gone; add (item id, sequence) of what it acknowledged."""
    try:
        for count in range(100_000):
            reply = client.embed(Item(f"t{number}-{count}", title=f"text {number} {count % 50}"))
            acknowledged.append((reply.item_id, reply.sequence))
    except ServiceError:
        pass


def kill_servers(path, rounds):
    promised = []
    for number in range(rounds):
        with server_process(path) as (process, client, _), ThreadPoolExecutor(4) as pool:
            enough = len(promised) + 20 + 37 * (number % 5)
            for thread in range(4):
                pool.submit(insert_until_cut_off, client, 10 * number + thread, promised)
            while len(promised) < enough and process.poll() is None:
                time.sleep(0.003)
            process.kill()
    promised = dict(promised)
    assert len(promised) >= 20 * rounds
    report = verify_store(path)
    assert report.problems == []
    with EmbeddingStore.open(path) as store:
        for item_id, sequence in promised.items():
            assert store.get_item(item_id).sequence == sequence
        assert store.read_vectors(list(promised), FINGERPRINT)[1].all()


def test_a_server_killed_during_inserts_loses_nothing_it_acknowledged(tmp_path):
    kill_servers(tmp_path, 2)


@pytest.mark.slow
def test_forty_killed_servers_lose_nothing_they_acknowledged(tmp_path):
    kill_servers(tmp_path, 40)


def test_health_reflection_and_metrics_are_there_for_strangers(tmp_path):
    with server_process(tmp_path, "embed.metrics_port=0") as (_, client, metrics_port):
        client.embed(Item("a", title="rose"))
        client.embed(Item("a", title="rose"))
        with grpc.insecure_channel(client.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "llmgr.v1.EmbeddingService"):
                reply = health.Check(health_pb2.HealthCheckRequest(service=name))
                assert reply.status == health_pb2.HealthCheckResponse.SERVING
            assert "llmgr.v1.EmbeddingService" in ProtoReflectionDescriptorDatabase(channel).get_services()
        text = metrics(metrics_port)
    assert 'llmgr_embedding_calls_total{code="OK",method="EmbedItem"} 2.0' in text
    assert "llmgr_embedding_unchanged_items_total 1.0" in text
    assert "llmgr_embedding_sequence 1.0" in text


def test_a_stream_that_the_client_abandons_leaves_the_server_well(tmp_path):
    with embedding_service(tmp_path) as (client, model):
        outcomes = client.embed_many(Item(f"i{number}", title=f"text {number}") for number in range(1000))
        assert isinstance(next(outcomes), EmbeddedItem)
        outcomes.close()
        time.sleep(0.3)
        assert client.embed(Item("after", title="after")).sequence
        read = len(model.texts)
        time.sleep(0.3)
        assert len(model.texts) == read < 1001
