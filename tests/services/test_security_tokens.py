"""Bearer tokens: who may call what, how tokens are read and read again, and that no log ever holds one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading

import grpc
import pytest
from bundle_fixture import make_catalogue
from certificate_fixture import ADMIN_TOKEN, READ_TOKEN, WRITE_TOKEN, replace_file, secret_file, server_settings, token_file
from embedding_fixture import ControlledModel, encoder_around, settings_with
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from patience import PATIENCE, wait_until
from rounds import rounds
from server_process import places

from llmgr_core.data.item import Item
from llmgr_core.errors import InputError
from services.client import ClientSecurity, EmbeddingClient, RankingClient, ServiceError
from services.client.calls import RetryPolicy
from services.client.local_server import ServerProcess
from services.contract import embedding_service_pb2, ranking_service_pb2
from services.embedding.background import serve_in_background
from services.security import tokens as token_module
from services.security.scopes import REQUIRED, required_scope
from services.security.tokens import Scope, TokenFile, parse_tokens

UNAUTHENTICATED, PERMISSION_DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
UNKNOWN_TOKEN = "nobody-0123456789-nobody"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Both servers with one token file, in this process."""
    directory = tmp_path_factory.mktemp("guarded")
    tokens = token_file(directory)
    from bundle_fixture import free_port_settings

    from services.ranking.server import RankingServer

    catalogue = make_catalogue(directory)
    overrides = [f"serve.security.tokens={tokens}"]
    with (
        RankingServer(
            catalogue.bundle, catalogue.store, free_port_settings(security=server_settings(tokens=tokens))
        ) as ranking,
        serve_in_background(encoder_around(ControlledModel()), directory / "own", settings_with(*overrides)) as embedding,
    ):
        yield {"RankingService": ranking.address, "EmbeddingService": embedding.address}


def call(address: str, method: str, metadata: list[tuple[str, str]], request: bytes = b"") -> grpc.StatusCode:
    """Status of one call; streams are ended after one request."""
    if "Watch" in method:
        # What it would watch from does not exist, so that it ends.
        request = embedding_service_pb2.WatchChangesRequest(after_sequence=10**9).SerializeToString()
    with grpc.insecure_channel(address) as channel:
        one = channel.stream_stream(method)(iter([request]), metadata=metadata, timeout=PATIENCE)
        with contextlib.suppress(grpc.RpcError):
            list(one)
        return one.code()


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def methods() -> list[str]:
    """Every method of the contract."""
    services = [
        *embedding_service_pb2.DESCRIPTOR.services_by_name.values(),
        *ranking_service_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


@pytest.mark.parametrize("method", methods())
def test_fault_bad_token_every_method_asks_for_its_scope(guarded, method):
    address = guarded[method.split(".")[-1].partition("/")[0]]
    assert call(address, method, []) is UNAUTHENTICATED
    assert call(address, method, bearer(UNKNOWN_TOKEN)) is UNAUTHENTICATED
    read = call(address, method, bearer(READ_TOKEN))
    assert (read is PERMISSION_DENIED) == (REQUIRED[method] is Scope.WRITE), read
    for token in (WRITE_TOKEN, ADMIN_TOKEN):
        assert call(address, method, bearer(token)) not in {UNAUTHENTICATED, PERMISSION_DENIED}


def test_methods_that_write_are_those_that_change_the_store():
    assert {method.rpartition("/")[2] for method, scope in REQUIRED.items() if scope is Scope.WRITE} == {
        "EmbedItem",
        "EmbedItems",
        "DeleteItem",
    }
    assert set(methods()) <= set(REQUIRED), "a new method needs a scope"
    assert required_scope("/llmgr.v1.Some/NewMethod") is Scope.ADMIN
    assert descriptor_pool.Default().FindServiceByName("grpc.health.v1.Health")


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", READ_TOKEN)],
        [("authorization", f"Basic {READ_TOKEN}")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {READ_TOKEN[:-1]}")],
        [("authorization", f"Bearer {READ_TOKEN}x")],
        [("authorization", f"Bearer {READ_TOKEN.upper()}")],
        [("authorization", f"Bearer {hashlib.sha256(READ_TOKEN.encode()).hexdigest()}")],
        [*bearer(READ_TOKEN), *bearer(WRITE_TOKEN)],
        [("authorization", "Bearer " + "x" * 5000)],
        [("authorization-bin", b"Bearer " + READ_TOKEN.encode())],
    ],
)
@rounds(10)
def test_fault_bad_token_nothing_but_one_whole_token_lets_in(guarded, metadata):
    for service, method in (("RankingService", "GetInfo"), ("EmbeddingService", "GetInfo")):
        assert call(guarded[service], f"/llmgr.v1.{service}/{method}", metadata) is UNAUTHENTICATED


def test_the_scheme_is_spelt_as_one_likes(guarded):
    metadata = [("authorization", f"bearer {READ_TOKEN}")]
    assert call(guarded["RankingService"], "/llmgr.v1.RankingService/GetInfo", metadata) is grpc.StatusCode.OK


@pytest.mark.parametrize("service", ["RankingService", "EmbeddingService"])
def test_health_is_open_and_reflection_is_not(guarded, service):
    with grpc.insecure_channel(guarded[service]) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=f"llmgr.v1.{service}"), timeout=PATIENCE
        )
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        assert next(reflect(iter([ask]), metadata=bearer(READ_TOKEN), timeout=PATIENCE)).list_services_response.service
        with pytest.raises(grpc.RpcError) as raised:
            next(reflect(iter([ask]), timeout=PATIENCE))
        assert raised.value.code() is UNAUTHENTICATED


def test_a_refused_call_says_why_and_never_what_was_sent(guarded, tmp_path):
    with EmbeddingClient(
        guarded["EmbeddingService"], security=ClientSecurity(token_file=secret_file(tmp_path / "token", READ_TOKEN))
    ) as client:
        assert client.info().items == 0
        with pytest.raises(ServiceError) as raised:
            client.embed(Item("a", title="lamp"))
    assert (raised.value.code, raised.value.reason) == (PERMISSION_DENIED, "SCOPE_TOO_SMALL")
    assert raised.value.metadata == {"scope": "write"}
    assert READ_TOKEN not in str(raised.value)


def test_a_message_is_not_read_before_the_caller_is_known(guarded):
    """15 MB of nonsense without a token: the answer is about the token."""
    address = guarded["RankingService"]
    assert call(address, "/llmgr.v1.RankingService/RankSession", [], b"\xff" * (15 << 20)) is UNAUTHENTICATED


def test_callers_without_a_token_are_counted_and_not_timed(serve_ranking, tmp_path):
    """They are refused in no time at all, which would hide that those who may call wait long."""
    server = serve_ranking(security=server_settings(tokens=token_file(tmp_path)))
    for _ in range(3):
        call(server.address, "/llmgr.v1.RankingService/RankSession", bearer(UNKNOWN_TOKEN))
    labels = {"method": "RankSession"}
    refused = server.registry.get_sample_value("llmgr_ranking_calls_total", {**labels, "code": "UNAUTHENTICATED"})
    assert refused == 3
    assert server.registry.get_sample_value("llmgr_ranking_call_seconds_count", labels) == 0
    assert server.registry.get_sample_value("llmgr_ranking_calls_running", labels) == 0


def test_callers_without_a_token_take_no_place_in_the_queue(serve_ranking, tmp_path):
    """One ranking at a time is admitted here; a crowd of strangers does not keep the one who may call out."""
    security = server_settings(tokens=token_file(tmp_path))
    server = serve_ranking(security=security, max_queue=1)
    stop = threading.Event()

    def knock():
        while not stop.is_set():
            call(server.address, "/llmgr.v1.RankingService/RankSession", bearer(UNKNOWN_TOKEN))

    crowd = [threading.Thread(target=knock) for _ in range(4)]
    for one in crowd:
        one.start()
    try:
        own = ClientSecurity(token_file=secret_file(tmp_path / "token", READ_TOKEN))
        with RankingClient(server.address, timeout=PATIENCE, retry=RetryPolicy(attempts=1), security=own) as client:
            for _ in range(20):
                client.rank(["item-1"], top_k=1)
                # Its own place is free again a moment after it has the answer.
                wait_until(lambda: server.ranking_pool.admitted == 0)
    finally:
        stop.set()
        for one in crowd:
            one.join()
    assert server.registry.get_sample_value("llmgr_ranking_shed_total", {"method": "RankSession"}) in {None, 0.0}


def test_tokens_are_read_again_when_the_file_changes(serve_ranking, tmp_path):
    tokens = token_file(tmp_path)
    server = serve_ranking(security=server_settings(tokens=tokens))
    method = "/llmgr.v1.RankingService/GetInfo"
    assert call(server.address, method, bearer(READ_TOKEN)) is grpc.StatusCode.OK
    replace_file(tokens, f"read shop {UNKNOWN_TOKEN}".encode())
    assert call(server.address, method, bearer(READ_TOKEN)) is UNAUTHENTICATED
    assert call(server.address, method, bearer(UNKNOWN_TOKEN)) is grpc.StatusCode.OK
    # What is of no use leaves the last good ones.
    for content, mode in ((b"nonsense", 0o600), (b"", 0o600), (b"read shop " + READ_TOKEN.encode(), 0o666)):
        replace_file(tokens, content, mode)
        assert call(server.address, method, bearer(UNKNOWN_TOKEN)) is grpc.StatusCode.OK
        assert call(server.address, method, bearer(READ_TOKEN)) is UNAUTHENTICATED
    tokens.unlink()
    assert call(server.address, method, bearer(UNKNOWN_TOKEN)) is grpc.StatusCode.OK
    assert server.registry.get_sample_value("llmgr_security_reloads_total", {"file": "tokens", "outcome": "refused"}) >= 3


def test_a_client_follows_its_token_file(serve_ranking, tmp_path):
    tokens, own = token_file(tmp_path), secret_file(tmp_path / "token", READ_TOKEN + "\n")
    server = serve_ranking(security=server_settings(tokens=tokens))
    with RankingClient(server.address, timeout=PATIENCE, security=ClientSecurity(token_file=own)) as client:
        client.info()
        replace_file(tokens, f"read shop {UNKNOWN_TOKEN}".encode())
        with pytest.raises(ServiceError, match="UNAUTHENTICATED"):
            client.info()
        replace_file(own, UNKNOWN_TOKEN.encode())
        client.info()


def test_a_file_may_hold_digests_instead_of_tokens(tmp_path):
    digest = hashlib.sha256(WRITE_TOKEN.encode()).hexdigest()
    tokens = TokenFile(secret_file(tmp_path / "tokens", f"WRITE catalogue sha256:{digest}\n\n# nothing more\n"))
    caller = tokens.caller(WRITE_TOKEN)
    assert (caller.name, caller.scope) == ("catalogue", Scope.WRITE)
    assert tokens.caller(digest) is None
    assert tokens.caller(f"sha256:{digest}") is None


def test_every_known_digest_is_compared_in_constant_time(tmp_path, monkeypatch):
    """The first of three tokens is asked for, and still all three are compared, by hmac and as digests."""
    compared = []

    def compare(known, sent):
        compared.append((known, sent))
        return known == sent

    tokens = TokenFile(token_file(tmp_path))
    monkeypatch.setattr(token_module.hmac, "compare_digest", compare)
    assert tokens.caller(READ_TOKEN).name == "shop"
    assert [known for known, _ in compared] == [
        hashlib.sha256(one.encode()).digest() for one in (READ_TOKEN, WRITE_TOKEN, ADMIN_TOKEN)
    ]
    assert {sent for _, sent in compared} == {hashlib.sha256(READ_TOKEN.encode()).digest()}


@pytest.mark.parametrize(
    "line",
    [
        "read shop",
        "read shop short",
        f"root shop {READ_TOKEN}",
        f"read a/b {READ_TOKEN}",
        f"read shop {READ_TOKEN} more",
        "read shop " + "x" * 2000,
        "read shop " + "ü" * 30,
        "read shop sha256:abc",
        f"read shop {READ_TOKEN}\nwrite other {READ_TOKEN}",
        "# only a note",
        "",
    ],
)
def test_a_token_file_of_another_form_is_refused_without_its_contents(line):
    with pytest.raises(InputError) as raised:
        parse_tokens(line.encode(), "tokens")
    assert "tokens" in str(raised.value)
    assert READ_TOKEN not in str(raised.value)
    assert "x" * 100 not in str(raised.value)


def test_logs_tell_the_caller_and_never_hold_a_token(tmp_path):
    """A real server as a process: calls that succeed, are refused and fail; then its whole log is searched."""
    catalogue = make_catalogue(tmp_path)
    tokens, own = token_file(tmp_path), secret_file(tmp_path / "own-token", READ_TOKEN)
    options = (*places(catalogue), "--tokens", str(tokens))
    with ServerProcess("ranking", tmp_path, *options, "--set", "serve.log_successes=true") as server:
        with RankingClient(server.address, timeout=PATIENCE, security=ClientSecurity(token_file=own)) as client:
            client.rank(["item-1"])
            with pytest.raises(ServiceError):
                client.rank(["item-1"], top_k=5000)
        call(server.address, "/llmgr.v1.RankingService/GetInfo", bearer(UNKNOWN_TOKEN))
        replace_file(tokens, b"read shop")
        call(server.address, "/llmgr.v1.RankingService/GetInfo", bearer(READ_TOKEN))
        wait_until(lambda: "security_file_refused" in server.log() and server.log().count('"event": "call"') >= 4)
        log = server.log()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    calls = [line for line in lines if line.get("event") == "call"]
    assert [(line["code"], line.get("caller")) for line in calls[:3]] == [
        ("OK", "shop"),
        ("INVALID_ARGUMENT", "shop"),
        ("UNAUTHENTICATED", None),
    ]
    assert all(line["request_id"] for line in calls)
    assert any(line.get("event") == "security_file_refused" for line in lines)
    for secret in (READ_TOKEN, WRITE_TOKEN, ADMIN_TOKEN, UNKNOWN_TOKEN):
        assert secret not in log
