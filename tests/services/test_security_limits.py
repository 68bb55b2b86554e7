"""Nothing a caller sends is without a bound, and nothing that goes wrong inside reaches the caller as text."""

from __future__ import annotations

import contextlib
import socket
import struct

import grpc
import pytest
from bundle_fixture import free_port_settings, make_catalogue
from embedding_fixture import ControlledModel, encoder_around, settings_with
from patience import PATIENCE

from services.client import RankingClient
from services.client.errors import ServiceError
from services.contract import embedding_service_pb2 as embedding
from services.contract import ranking_service_pb2 as ranking
from services.embedding.background import serve_in_background
from services.embedding.service import EmbeddingService
from services.ranking.current_ranker import CurrentRanker
from services.ranking.server import RankingServer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE, ENHANCE_YOUR_CALM = 3, 6, 11
SESSION = ranking.RankSessionRequest
LONG_ID = "x" * 513
MIB = 1 << 20


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Both servers; texts of at most 64 KiB."""
    directory = tmp_path_factory.mktemp("servers")
    catalogue = make_catalogue(directory)
    settings = settings_with("embed.max_text_bytes=65536")
    with (
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings(max_request_bytes=4 * MIB)) as first,
        serve_in_background(encoder_around(ControlledModel()), directory / "own", settings) as second,
    ):
        yield {"RankingService": first.address, "EmbeddingService": second.address}


def item(**fields) -> dict:
    return {"item": {"item_id": "a", "title": "lamp"} | fields}


def names(*paths: int) -> list[dict]:
    return [{"names": ["x"] * count} for count in paths]


# What is too much of each field, and the field that the answer must name.
TOO_MUCH = {
    "RankSession.item_ids": (SESSION(item_ids=["a"] * 1001), "item_ids"),
    "RankSession.item_ids, one": (SESSION(item_ids=["a", LONG_ID]), "item_ids[1]"),
    "RankSession.top_k": (SESSION(top_k=1001), "top_k"),
    "RankSession.candidate_ids": (SESSION(candidate_ids=["a"] * 10_001), "candidate_ids"),
    "RankSession.candidate_ids, one": (SESSION(candidate_ids=[LONG_ID]), "candidate_ids[0]"),
    "RankSession.exclude_item_ids": (SESSION(exclude_item_ids=["a"] * 10_001), "exclude_item_ids"),
    "RankSession.exclude_item_ids, one": (SESSION(exclude_item_ids=["a", "b", "\0"]), "exclude_item_ids[2]"),
    "RankSessions.sessions": (ranking.RankSessionsRequest(sessions=[SESSION()] * 257), "sessions"),
    "RankSessions.sessions, one": (
        ranking.RankSessionsRequest(sessions=[SESSION(), SESSION(item_ids=["a"] * 1001)]),
        "sessions[1].item_ids",
    ),
    "EmbedItem.item.item_id": (embedding.EmbedItemRequest(**item(item_id=LONG_ID)), "item.item_id"),
    "EmbedItem.item.title": (embedding.EmbedItemRequest(**item(title="x" * MIB)), "item.title"),
    "EmbedItem.item.description": (embedding.EmbedItemRequest(**item(description="ü" * 40_000)), "item.description"),
    "EmbedItem.item.brand": (embedding.EmbedItemRequest(**item(brand="x" * MIB)), "item.brand"),
    "EmbedItem.item.categories": (embedding.EmbedItemRequest(**item(categories=[{}] * 1001)), "item.categories"),
    "EmbedItem.item.categories.names": (embedding.EmbedItemRequest(**item(categories=names(600, 600))), "item.categories"),
    "EmbedItem.item.categories.names, one": (
        embedding.EmbedItemRequest(**item(categories=[{"names": ["x" * MIB]}])),
        "item.categories[0]",
    ),
    "EmbedItem.item.attributes": (
        embedding.EmbedItemRequest(**item(attributes={str(number): "x" for number in range(1001)})),
        "item.attributes",
    ),
    "EmbedItem.item.attributes.key": (embedding.EmbedItemRequest(**item(attributes={"x" * MIB: ""})), "item.attributes"),
    "EmbedItem.item.attributes.value": (embedding.EmbedItemRequest(**item(attributes={"x": "x" * MIB})), "item.attributes"),
    "GetItem.item_id": (embedding.GetItemRequest(item_id=LONG_ID), "item_id"),
    "DeleteItem.item_id": (embedding.DeleteItemRequest(item_id=LONG_ID), "item_id"),
    "WatchChanges.store_epoch": (embedding.WatchChangesRequest(store_epoch="0" * 65), "store_epoch"),
}
# Every value of these is in order.
ANY_VALUE = {"return_vector", "include_seen", "min_sequence", "after_sequence"}


def fields_of(message, prefix: str) -> set[str]:
    """Dotted names of all fields of a message, and of the messages in it; maps have a key and a value."""
    found = set()
    for field in message.fields:
        name = f"{prefix}.{field.name}"
        if field.message_type is not None:
            found |= fields_of(field.message_type, name)
            if not field.is_repeated:
                continue
        found.add(name)
    return {name for name in found if name.rpartition(".")[2] not in ANY_VALUE}


def requests() -> dict[str, object]:
    """Descriptor of the request of each method; EmbedItems and RankSessions carry those of EmbedItem and RankSession."""
    services = [*embedding.DESCRIPTOR.services_by_name.values(), *ranking.DESCRIPTOR.services_by_name.values()]
    return {method.name: method.input_type for service in services for method in service.methods}


def test_every_field_of_every_request_stands_in_the_table():
    found = set().union(*(fields_of(message, name) for name, message in requests().items()))
    found = {name.replace("RankSessions.sessions.", "RankSession.").replace("EmbedItems.", "EmbedItem.") for name in found}
    assert found == {name.partition(",")[0] for name in TOO_MUCH}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_too_much_is_refused_by_name(servers, case):
    request, field = TOO_MUCH[case]
    method = case.partition(".")[0]
    service = "RankingService" if method.startswith("Rank") else "EmbeddingService"
    error = refusal(servers[service], f"/llmgr.v1.{service}/{method}", request.SerializeToString())
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT, error
    assert [violation.field for violation in error.violations] == [field]
    assert len(error.details) < 300, "what was sent is not sent back"


def refusal(address: str, method: str, raw: bytes, metadata=()) -> ServiceError:
    """What a call failed with."""
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        call = channel.stream_stream(method)(iter([raw]), timeout=PATIENCE, metadata=metadata)
        with pytest.raises(grpc.RpcError) as raised:
            list(call)
    return ServiceError.from_call(raised.value)


@pytest.mark.parametrize("case", [name for name in TOO_MUCH if name.startswith("EmbedItem.")])
def test_too_much_in_a_stream_fails_alone(servers, case):
    request, field = TOO_MUCH[case]
    good = embedding.EmbedItemRequest(**item(item_id="good"))
    with grpc.insecure_channel(servers["EmbeddingService"]) as channel:
        call = channel.stream_stream("/llmgr.v1.EmbeddingService/EmbedItems")
        replies = list(call(iter([request.SerializeToString(), good.SerializeToString()]), timeout=PATIENCE))
    outcomes = sorted((embedding.EmbedItemsResponse.FromString(one) for one in replies), key=lambda one: one.index)
    assert (outcomes[0].failure.field, outcomes[1].embedded.item_id) == (field, "good")


def test_a_message_over_the_limit_is_refused_before_it_is_read(servers):
    error = refusal(servers["RankingService"], "/llmgr.v1.RankingService/RankSession", b"\0" * (4 * MIB + 1))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("service", ["RankingService", "EmbeddingService"])
@pytest.mark.parametrize(
    "metadata",
    [
        [("x-request-id", "x" * MIB)],
        [(f"x-{number}", "y" * 1000) for number in range(1000)],
        [("authorization", "Bearer " + "x" * MIB)],
        [("traceparent", "0" * MIB)],
    ],
    ids=["request id", "many", "token", "trace"],
)
def test_a_megabyte_of_metadata_is_refused_and_the_server_goes_on(servers, service, metadata):
    method = f"/llmgr.v1.{service}/GetInfo"
    error = refusal(servers[service], method, b"", metadata)
    assert error.code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
    with grpc.insecure_channel(servers[service]) as channel:
        assert channel.unary_unary(method)(b"", timeout=PATIENCE)


@pytest.mark.parametrize("identity", ["x" * 129, "a b"], ids=["long", "space"])
def test_a_request_id_is_taken_only_if_short(servers, identity):
    with grpc.insecure_channel(servers["RankingService"]) as channel:
        call = channel.unary_unary("/llmgr.v1.RankingService/RankSession").future(
            b"\xff", timeout=PATIENCE, metadata=[("x-request-id", identity)]
        )
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        told = dict(call.trailing_metadata())["x-request-id"]
    assert (told == identity) == (identity == "a b")


@pytest.mark.parametrize("raw", [b"\x0a\x02\xff\xfe", b"\x0a\x03\xed\xa0\x80", b"\x1a\x01\xc0", b"\x0a\x05ab"])
def test_fault_bad_utf8_is_an_invalid_argument(servers, raw):
    for service, method in (("RankingService", "RankSession"), ("EmbeddingService", "GetItem")):
        if service == "EmbeddingService" and raw[0] == 0x1A:
            continue  # no such field: skipped, as the format asks for
        error = refusal(servers[service], f"/llmgr.v1.{service}/{method}", raw)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


def frames(address: str, sent: bytes, enough) -> list[tuple[int, bytes]]:
    """HTTP/2 frames (type, payload) a server sends after ``sent``, until ``enough`` of them or it hangs up."""
    host, _, port = address.rpartition(":")
    received, buffer = [], b""
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as raw, contextlib.suppress(ConnectionError):
        raw.sendall(PREFACE + frame(SETTINGS, b"") + sent)
        while not enough(received):
            data = raw.recv(65536)
            if not data:
                break
            buffer += data
            while len(buffer) >= 9 and len(buffer) >= 9 + (size := int.from_bytes(buffer[:3], "big")):
                received.append((buffer[3], buffer[9 : 9 + size]))
                buffer = buffer[9 + size :]
    return received


def frame(kind: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload


@pytest.mark.parametrize("service", ["RankingService", "EmbeddingService"])
def test_fault_slow_client_streams_and_headers_of_one_connection_are_bounded(servers, service):
    received = frames(servers[service], b"", lambda got: any(kind == SETTINGS and payload for kind, payload in got))
    payload = next(payload for kind, payload in received if kind == SETTINGS and payload)
    settings = dict(struct.unpack(">HI", payload[place : place + 6]) for place in range(0, len(payload), 6))
    assert settings[MAX_CONCURRENT_STREAMS] == 1024
    assert settings[MAX_HEADER_LIST_SIZE] <= 16 << 10


@pytest.mark.parametrize("service", ["RankingService", "EmbeddingService"])
def test_fault_slow_client_that_pings_all_the_time_is_sent_away(servers, service):
    pings = frame(PING, b"12345678") * 20
    received = frames(servers[service], pings, lambda got: any(kind == GOAWAY for kind, _ in got))
    goaway = next(payload for kind, payload in received if kind == GOAWAY)
    assert int.from_bytes(goaway[4:8], "big") == ENHANCE_YOUR_CALM


SECRET = "/srv/weights/secret.safetensors"


def failing(*arguments, **named):
    raise RuntimeError(SECRET)


def fault_details(address: str, method: str, raw: bytes = b"") -> str:
    """Everything a client is told: details and trailing metadata."""
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(method)(iter([raw]), timeout=PATIENCE, metadata=[("x-request-id", "visit-9")])
        replies = b""
        with contextlib.suppress(grpc.RpcError):
            replies = b"".join(call)
        assert replies or call.code() is grpc.StatusCode.INTERNAL
        return f"{call.details()} {call.trailing_metadata()} {replies!r}"


@pytest.mark.parametrize("method", ["RankSession", "RankSessions", "GetInfo"])
def test_a_fault_of_the_ranking_server_is_told_by_an_id_alone(serve_ranking, monkeypatch, method):
    server = serve_ranking()
    monkeypatch.setattr(CurrentRanker, "ranker", property(failing))
    told = fault_details(server.address, f"/llmgr.v1.RankingService/{method}")
    assert "visit-9" in told
    assert not any(word in told for word in (SECRET, "RuntimeError", "Traceback"))


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("EmbedItem", "embed"),
        ("EmbedItems", "embed"),
        ("GetItem", "_get_item"),
        ("DeleteItem", "_delete_item"),
        ("WatchChanges", "_watch"),
        ("GetInfo", "_get_info"),
    ],
)
def test_a_fault_of_the_embedding_server_is_told_by_an_id_alone(tmp_path, monkeypatch, method, part):
    monkeypatch.setattr(EmbeddingService, part, failing)
    with serve_in_background(encoder_around(ControlledModel()), tmp_path / "store", settings_with()) as listening:
        told = fault_details(listening.address, f"/llmgr.v1.EmbeddingService/{method}")
    assert "internal error; the server's log has it under request" in told
    assert not any(word in told for word in (SECRET, "RuntimeError", "Traceback"))


def test_a_bundle_with_a_changed_byte_is_not_loaded(catalogue):
    from llmgr_core.errors import ArtefactError

    catalogue.damage_weights()
    with pytest.raises(ArtefactError, match=r"ranker\.safetensors"):
        RankingServer(catalogue.bundle, catalogue.store, free_port_settings())


def test_the_limits_do_not_stand_in_the_way(servers):
    with RankingClient(servers["RankingService"], timeout=PATIENCE) as client:
        ids = [f"item-{number % 120}" for number in range(1000)]
        assert len(client.rank(ids, top_k=1000, exclude_item_ids=[], include_seen=True).items) == 120
