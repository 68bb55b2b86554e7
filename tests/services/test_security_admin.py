"""The admin port: off by default, apart from the service, for administrators; reload, rollback and drain on a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from bundle_fixture import DIMENSION, OTHER_FINGERPRINT, Catalogue, free_port_settings, put
from certificate_fixture import ADMIN_TOKEN, WRITE_TOKEN, Authority, secret_file, server_settings, token_file
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from patience import PATIENCE, rank_from

from llmgr_core.errors import LlmgrError
from llmgr_core.settings import load_settings
from llmgr_core.store import Encoder
from llmgr_core.store.compaction import compact_store
from llmgr_core.store.errors import StoreError
from services.client import ClientSecurity, RankingClient, ServiceError
from services.client.admin_client import AdminClient
from services.commands.admin import command
from services.contract import admin_service_pb2
from services.ranking.live_ranker import LiveRanker
from services.ranking.server import RankingServer

METHODS = [method.name for method in admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods]


@pytest.fixture
def operated(serve_ranking):
    """A ranking server that looks for bundles only when it is told to, and a client of its admin port."""
    server = serve_ranking(admin_port=0, bundle_poll_s=0)
    with AdminClient(f"127.0.0.1:{server.admin_port}") as admin:
        yield server, admin


def health(server: RankingServer) -> int:
    with grpc.insecure_channel(server.address) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status


def test_there_is_no_admin_port_unless_asked_for(serve_ranking):
    assert load_settings().serve.admin_port == -1
    assert serve_ranking().admin_port is None


@pytest.mark.parametrize("method", METHODS)
def test_the_service_port_does_not_answer_for_it(operated, method):
    server, _ = operated
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(f"/llmgr.v1.AdminService/{method}")(b"", timeout=PATIENCE)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reload_and_rollback_change_the_bundle_between_two_requests(operated, catalogue):
    """Rankings go on all the time; the versions come in the order in which they were asked for, and none fails."""
    server, admin = operated
    first = admin.status()
    assert (first.model_version, first.previous_model_version) == (server.current.ranker.version, "")
    seen, failures, stop = [], [], threading.Event()

    def ask() -> None:
        with RankingClient(server.address, timeout=PATIENCE) as client:
            while not stop.is_set():
                try:
                    version = client.rank(["item-1"], top_k=3).model_version
                    if seen[-1:] != [version]:
                        seen.append(version)
                except Exception as error:
                    failures.append(error)

    def answered(version: str) -> None:
        while seen[-1:] != [version] and not failures:
            stop.wait(0.005)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        answered(first.model_version)
        catalogue.write_bundle(seed=2)
        second = admin.reload()
        assert second.previous_model_version == first.model_version
        answered(second.model_version)
        back = admin.rollback()
        assert (back.model_version, back.previous_model_version) == (first.model_version, second.model_version)
        answered(first.model_version)
        # It holds: what stands at the bundle's place is what was rolled back.
        assert admin.reload().model_version == first.model_version
        assert admin.rollback().model_version == second.model_version
        answered(second.model_version)
    finally:
        stop.set()
        asking.join()
    assert failures == []
    assert seen == [first.model_version, second.model_version, first.model_version, second.model_version]


def test_a_rollback_brings_what_the_store_has_learned_since(serve_ranking, catalogue):
    with catalogue.writer() as writer:
        server = serve_ranking(admin_port=0, bundle_poll_s=0)
        with AdminClient(f"127.0.0.1:{server.admin_port}") as admin, RankingClient(server.address, timeout=PATIENCE) as client:
            catalogue.write_bundle(seed=2)
            admin.reload()
            written = put(writer, "new", seed=5)
            rank_from(client, written.sequence)
            assert admin.rollback().sequence == written.sequence
            assert [one.item_id for one in client.rank(["item-1"], candidate_ids=["new"]).items] == ["new"]
            later = put(writer, "later", seed=6)
            assert rank_from(client, later.sequence).sequence >= later.sequence


def test_a_rollback_is_done_while_the_store_cannot_be_read(operated, catalogue, monkeypatch):
    server, admin = operated
    first = admin.status().model_version
    catalogue.write_bundle(seed=2)
    assert admin.reload().model_version != first

    def unreadable(ranker):
        raise StoreError("the disk is gone", "mount it again")

    with monkeypatch.context() as patched:
        patched.setattr(LiveRanker, "follow", unreadable)
        assert admin.rollback().model_version == first
        with RankingClient(server.address, timeout=PATIENCE) as client:
            assert client.rank(["item-1"]).model_version == first


def put_by_another_process(catalogue: Catalogue, item_id: str) -> int:
    """Sequence of an item that is inserted while this process reads the store."""
    program = (
        "import sys; from pathlib import Path; from bundle_fixture import Catalogue, put\n"
        "with Catalogue(Path(), Path(sys.argv[1])).writer() as writer: print(put(writer, sys.argv[2], seed=7).sequence)"
    )
    command = [sys.executable, "-c", program, str(catalogue.store), item_id]
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[2]}"}
    return int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def test_a_rollback_holds_over_a_store_that_was_compacted(operated, catalogue):
    server, admin = operated
    first = admin.status().model_version
    catalogue.write_bundle(seed=2)
    second = admin.reload().model_version
    admin.rollback()
    compact_store(catalogue.store)
    status = admin.reload()
    assert (status.model_version, status.previous_model_version) == (first, second)
    with RankingClient(server.address, timeout=PATIENCE) as client:
        # Both bundles follow the new file, whichever is served.
        for version, item_id in ((first, "one"), (second, "two")):
            ranked = rank_from(client, put_by_another_process(catalogue, item_id), candidate_ids=[item_id])
            assert (ranked.model_version, [one.item_id for one in ranked.items]) == (version, [item_id])
            status = admin.rollback()
    assert (status.model_version, status.previous_model_version) == (first, second)
    # Another bundle still ends it.
    catalogue.write_bundle(seed=3)
    assert admin.reload().model_version not in {first, second}


def test_a_bundle_that_another_store_has_no_vectors_for_is_no_longer_kept(serve_ranking, catalogue, tmp_path):
    with catalogue.writer() as writer:
        writer.register(Encoder(OTHER_FINGERPRINT, DIMENSION, "no model"))
    server = serve_ranking(admin_port=0, bundle_poll_s=0)
    with AdminClient(f"127.0.0.1:{server.admin_port}") as admin:
        first = admin.status().model_version
        catalogue.write_bundle(seed=2, fingerprint=OTHER_FINGERPRINT)
        assert admin.reload().previous_model_version == first
        admin.rollback()
        other = Catalogue(catalogue.bundle, tmp_path / "other-store")
        other.write_store()
        catalogue.store.rename(tmp_path / "old-store")
        other.store.rename(catalogue.store)
        status = admin.reload()
        assert (status.model_version, status.previous_model_version) == (first, "")
        with pytest.raises(ServiceError) as raised:
            admin.rollback()
        assert raised.value.reason == "NO_PREVIOUS_BUNDLE"


def test_without_a_bundle_before_it_there_is_nothing_to_go_back_to(operated):
    with pytest.raises(ServiceError) as raised:
        operated[1].rollback()
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_PREVIOUS_BUNDLE")


def test_a_bundle_that_cannot_be_served_is_refused_without_its_reason(operated, catalogue, tmp_path):
    _, admin = operated
    before = admin.status().model_version
    catalogue.write_bundle(seed=2, fingerprint=OTHER_FINGERPRINT)
    for _ in range(2):
        with pytest.raises(ServiceError) as raised:
            admin.reload()
        assert raised.value.reason == "BUNDLE_REFUSED"
        assert str(tmp_path) not in str(raised.value)
    assert admin.status().model_version == before
    Catalogue(catalogue.bundle, catalogue.store).write_bundle(seed=3)
    assert admin.reload().model_version not in {before, ""}


def test_a_drained_server_says_so_and_still_answers(operated):
    server, admin = operated
    assert health(server) == health_pb2.HealthCheckResponse.SERVING
    assert admin.drain().draining
    assert health(server) == health_pb2.HealthCheckResponse.NOT_SERVING
    with grpc.insecure_channel(server.address) as channel:
        assert channel.unary_unary("/llmgr.v1.RankingService/RankSession")(b"", timeout=PATIENCE)
    assert not admin.drain(resume=True).draining
    assert health(server) == health_pb2.HealthCheckResponse.SERVING


def test_a_server_that_is_stuck_does_not_say_serving_because_it_is_no_longer_drained(operated):
    server, admin = operated
    admin.drain()
    server._stuck(True)
    admin.drain(resume=True)
    assert health(server) == health_pb2.HealthCheckResponse.NOT_SERVING
    server._stuck(False)
    assert health(server) == health_pb2.HealthCheckResponse.SERVING


def test_only_an_admin_token_opens_it_over_tls(serve_ranking, tmp_path):
    authority = Authority(tmp_path)
    security = server_settings(authority.issue("server"), tokens=token_file(tmp_path))
    server = serve_ranking(admin_port=0, security=security)
    address = f"127.0.0.1:{server.admin_port}"
    for token, code in ((None, "UNAUTHENTICATED"), (WRITE_TOKEN, "PERMISSION_DENIED")):
        own = None if token is None else secret_file(tmp_path / "own", token)
        with AdminClient(address, timeout=PATIENCE, security=authority.client(token=own)) as admin:
            for action in (admin.status, admin.reload, admin.rollback, admin.drain):
                with pytest.raises(ServiceError, match=code):
                    action()
    own = secret_file(tmp_path / "own", ADMIN_TOKEN)
    with AdminClient(address, timeout=PATIENCE, security=authority.client(token=own)) as admin:
        assert admin.status().items == 120
    with AdminClient(address, timeout=PATIENCE, security=ClientSecurity(token_file=own)) as admin, pytest.raises(ServiceError):
        admin.status()


def test_other_machines_never_operate_a_server_without_showing_who_they_are(catalogue, tmp_path):
    authority = Authority(tmp_path)
    pair = authority.issue("server")

    def start(**security) -> RankingServer:
        settings = free_port_settings(host="0.0.0.0", admin_port=0, security=server_settings(pair) | security)
        return RankingServer(catalogue.bundle, catalogue.store, settings)

    with pytest.raises(LlmgrError, match="admin port"):
        start()
    for guard in ({"tokens": str(token_file(tmp_path))}, {"client_authorities": str(authority.file)}):
        with start(**guard) as server:
            assert server.admin_port


def test_the_command_asks_every_process_and_fails_if_one_did(operated):
    server, _ = operated
    address = f"127.0.0.1:{server.admin_port}"
    done = CliRunner().invoke(command, ["status", "--address", address, "--address", address])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.output.splitlines()]
    assert [(line["address"], line["items"]) for line in lines] == [(address, 120)] * 2
    failed = CliRunner().invoke(command, ["rollback", "--address", address, "--address", "127.0.0.1:1", "--timeout", "60"])
    told = [json.loads(line) for line in failed.output.splitlines() if line.startswith("{")]
    assert [one["error"] for one in told] == ["FAILED_PRECONDITION", "UNAVAILABLE"]
    assert isinstance(failed.exception, LlmgrError)
