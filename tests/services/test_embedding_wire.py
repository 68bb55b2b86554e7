"""Whatever bytes reach a method of the embedding service, the answer is a status meant for clients."""

import struct

import grpc
import pytest
from embedding_fixture import embedding_service
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import PATIENCE

from services.contract import embedding_service_pb2 as messages

METHODS = {
    "EmbedItem": messages.EmbedItemRequest,
    "EmbedItems": messages.EmbedItemsRequest,
    "GetItem": messages.GetItemRequest,
    "DeleteItem": messages.DeleteItemRequest,
    "WatchChanges": messages.WatchChangesRequest,
    "GetInfo": messages.EmbeddingServiceGetInfoRequest,
}
ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    # WatchChanges never ends by itself.
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
SUSPICIOUS = ("Traceback", "Error(", "Exception", ".py", "DecodeError", "object at 0x")
# The fixture is of the whole module; a busy machine draws slowly.
UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
FAST = settings(deadline=None, max_examples=60, suppress_health_check=UNCHECKED)


@pytest.fixture(scope="module")
def channel(tmp_path_factory):
    with embedding_service(tmp_path_factory.mktemp("store")) as (client, _), grpc.insecure_channel(client.address) as channel:
        yield channel


def answer(channel, method, raw):
    """Status code and details of one call with raw bytes."""
    path = f"/llmgr.v1.EmbeddingService/{method}"
    if method == "EmbedItems":
        call = channel.stream_stream(path)(iter([raw]), timeout=PATIENCE)
    elif method == "WatchChanges":
        call = channel.unary_stream(path)(raw, timeout=0.02)
    else:
        call = channel.unary_unary(path).future(raw, timeout=PATIENCE)
    try:
        replies = list(call) if method in {"EmbedItems", "WatchChanges"} else [call.result()]
    except grpc.RpcError:
        return call.code(), call.details()
    for reply in replies:
        if method == "EmbedItems":
            outcome = messages.EmbedItemsResponse.FromString(reply)
            if outcome.WhichOneof("outcome") == "failure":
                return _code(outcome.failure.code), outcome.failure.message
    return call.code(), ""


def _code(number):
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def check(channel, method, raw):
    code, details = answer(channel, method, raw)
    assert code in ALLOWED, (method, raw, code, details)
    assert not any(word in details for word in SUSPICIOUS), details


@pytest.mark.parametrize("method", METHODS)
@FAST
@given(raw=st.binary(max_size=200))
def test_random_bytes_get_a_status_for_clients(channel, method, raw):
    check(channel, method, raw)


text = st.text(max_size=30) | st.sampled_from(["\0", "a" * 600, "<br>", "𝕏", "\u202e", "\ufeff", "'; DROP", "{}", "%s%n"])
items = st.builds(
    lambda item_id, title, names, attributes: messages.EmbedItemRequest(
        item={"item_id": item_id, "title": title, "categories": [{"names": names}], "attributes": attributes}
    ).SerializeToString(),
    text,
    text,
    st.lists(text, max_size=3),
    st.dictionaries(text, text, max_size=3),
)


@pytest.mark.parametrize("method", METHODS)
@FAST
@given(data=st.data())
def test_nearly_right_messages_get_a_status_for_clients(channel, method, data):
    """A valid item message with some bytes replaced, cut off or doubled."""
    raw = bytearray(data.draw(items))
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        change = data.draw(st.sampled_from(["replace", "cut", "double"]))
        if change == "cut":
            del raw[place:]
        elif change == "double":
            raw[place:place] = raw[place : place + 8]
        elif raw:
            raw[place] = data.draw(st.integers(0, 255))
    check(channel, method, bytes(raw))


@pytest.mark.parametrize("depth", [50, 5000])
def test_deep_nesting_is_no_way_in(channel, depth):
    raw = b""
    for _ in range(depth):
        raw = b"\x2a" + _varint(len(raw)) + raw
    for method in METHODS:
        check(channel, method, b"\x0a" + _varint(len(raw)) + raw)


def test_a_length_that_lies_is_no_way_in(channel):
    for method in METHODS:
        check(channel, method, b"\x0a" + _varint(2**31 - 1) + b"short")
        check(channel, method, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
        check(channel, method, struct.pack("<Q", 2**64 - 1))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=5000, suppress_health_check=UNCHECKED)
@given(raw=st.binary(max_size=2000) | items)
def test_many_random_frames_get_a_status_for_clients(channel, method, raw):
    check(channel, method, raw)


def _varint(number):
    out = bytearray()
    while True:
        low, number = number & 0x7F, number >> 7
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)
