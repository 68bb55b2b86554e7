"""Text that is none: bad UTF-8, NUL, nothing, or far too much of it."""

import grpc
import pytest
from embedding_fixture import (
    embedding_service,
)
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from llmgr_core.data.item import Item
from services.client import ServiceError
from services.contract import embedding_service_pb2 as messages
from services.contract import embedding_service_pb2_grpc

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with embedding_service(tmp_path_factory.mktemp("store")) as running:
        yield running


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
        (Item("a", title="rose", categories=(("",) * 1001,)), "item.categories", "1001 entries"),
    ],
)
def test_fault_nul_empty_or_oversized_text_is_refused_by_field(shared, item, field, words):
    client, _ = shared
    with pytest.raises(ServiceError) as caught:
        client.embed(item)
    error = caught.value
    assert (error.code, error.reason) == (INVALID, "INVALID_FIELD")
    assert [one.field for one in error.violations] == [field]
    assert words in error.details


def test_fault_bad_text_nothing_of_a_refused_item_is_stored(shared):
    client, model = shared
    assert client.info().items == 0
    assert model.texts == ["warm up"] or not model.texts


@pytest.mark.parametrize("call", ["get", "delete"])
@pytest.mark.parametrize("item_id", ["", "a\0", "x" * 513])
def test_fault_bad_id_is_refused_by_field(shared, call, item_id):
    client, _ = shared
    with pytest.raises(ServiceError) as caught:
        getattr(client, call)(item_id)
    assert (caught.value.code, caught.value.violations[0].field) == (INVALID, "item_id")


def test_fault_empty_request_is_refused(shared):
    client, _ = shared
    with grpc.insecure_channel(client.address) as channel:
        stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.EmbedItem(messages.EmbedItemRequest())
    assert caught.value.code() == INVALID


def test_fault_bad_utf8_is_refused_without_an_exceptions_words(shared):
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


def test_fault_message_beyond_the_limit_is_refused(tmp_path):
    with embedding_service(tmp_path, None, "serve.max_request_bytes=65536") as (client, _):
        with pytest.raises(ServiceError) as caught:
            client.embed(Item("a", title="x" * 100_000))
        assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.embed(Item("a", title="rose")).sequence == 1
