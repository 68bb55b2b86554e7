"""Starting and stopping an embedding server, and what it shows of itself when something is wrong."""

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from embedding_fixture import (
    FINGERPRINT,
    ControlledModel,
    embedding_service,
    encoder_around,
    measured_service,
    settings_with,
)
from embedding_process import HELD
from embedding_server_process import log_of, server_process
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from metrics_page import series, value
from patience import PATIENCE, wait_until

from llmgr_core.data.item import Item
from llmgr_core.errors import LlmgrError
from llmgr_core.store import StoreError, StoreLockedError, StoreWriter
from services.client import EmbeddedItem, ServiceError
from services.contract import embedding_service_pb2 as messages
from services.contract import embedding_service_pb2_grpc
from services.embedding.background import serve_in_background


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


def calls_running(metrics_port):
    """Calls in the server by method, but for the methods that have none."""
    running = series(metrics_port)["llmgr_embedding_calls_running"]
    return {labels["method"]: number for labels, number in running if number}


def watch_until_the_server_stops(client):
    with pytest.raises(ServiceError, match="stopping"):
        list(client.changes())


def test_sigterm_lets_calls_in_flight_finish_and_frees_the_store(tmp_path):
    store, go_on = tmp_path / "store", tmp_path / "go-on"
    with server_process(store, "serve.drain_s=600", "embed.metrics_port=0") as (process, client, metrics_port):
        watcher = threading.Thread(target=watch_until_the_server_stops, args=[client])
        watcher.start()
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(client.embed, Item(f"i{number}", title=f"{HELD}{go_on} {number}")) for number in range(4)]
            wait_until(lambda: calls_running(metrics_port) == {"EmbedItem": 4, "WatchChanges": 1})
            process.send_signal(signal.SIGTERM)
            # It is stopping now, and no call has ended.
            watcher.join(PATIENCE)
            assert not watcher.is_alive()
            assert not any(one.done() for one in calls)
            go_on.touch()
            assert sorted(one.result().sequence for one in calls) == [1, 2, 3, 4]
        # Well before the 600 s that calls in flight would have had: a watcher holds nothing up.
        assert process.wait(2 * PATIENCE) == 0
    log = log_of(store).read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["method"] for line in lines if line.get("code") == "OK"} == {"EmbedItem"}
    assert HELD not in log, "item texts are not for the log"
    with StoreWriter.open(store) as written:
        assert written.sequence() == 4


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
        page = series(metrics_port)
    assert value(page, "llmgr_embedding_calls_total", code="OK", method="EmbedItem") == 2
    assert value(page, "llmgr_embedding_unchanged_items_total") == 1
    assert value(page, "llmgr_embedding_sequence") == 1


def test_a_stream_that_the_client_abandons_leaves_the_server_well(tmp_path):
    with measured_service(tmp_path) as (client, model, measured):
        outcomes = client.embed_many(Item(f"i{number}", title=f"text {number}") for number in range(1000))
        assert isinstance(next(outcomes), EmbeddedItem)
        outcomes.close()
        wait_until(lambda: measured("calls_running", method="EmbedItems") == measured("queued_texts") == 0)
        assert client.embed(Item("after", title="after")).sequence
        read = len(model.texts)
        time.sleep(0.3)
        assert len(model.texts) == read < 1001
