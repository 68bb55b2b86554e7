"""Before a server says SERVING it has answered a call through gRPC."""

from __future__ import annotations

import tempfile
from pathlib import Path

import grpc
import pytest
from bundle_fixture import free_port_settings
from certificate_fixture import server_settings, token_file
from grpc_health.v1 import health_pb2, health_pb2_grpc
from patience import PATIENCE

from llmgr_core.errors import LlmgrError
from services.client import RankingClient
from services.ranking import service
from services.ranking.server import FULL_NAME, RankingServer


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """Where the server puts its socket file."""
    directory = tmp_path / "t"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def test_it_ranks_through_grpc_before_it_says_serving_and_leaves_no_trace(catalogue, scratch, monkeypatch):
    """Nobody is counted, no way in is left, and health says NOT_SERVING meanwhile."""
    server = RankingServer(catalogue.bundle, catalogue.store, free_port_settings())
    seen: list[int] = []
    original = service.rank_query

    def look_at_health(*given):
        with grpc.insecure_channel(server.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            seen.append(stub.Check(health_pb2.HealthCheckRequest(service=FULL_NAME), timeout=PATIENCE).status)
        return original(*given)

    monkeypatch.setattr(service, "rank_query", look_at_health)
    path = server._warm_up._path
    assert [one.stat().st_mode & 0o777 for one in scratch.iterdir()] == [0o700]
    with server:
        assert seen
        assert set(seen) == {health_pb2.HealthCheckResponse.NOT_SERVING}
        assert list(scratch.iterdir()) == []
        assert server.registry.get_sample_value("llmgr_ranking_calls_total", {"method": "RankSession", "code": "OK"}) == 0
        assert server.registry.get_sample_value("llmgr_ranking_rank_seconds_count") == 0
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary(path)(b"", timeout=PATIENCE)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        monkeypatch.setattr(service, "rank_query", original)
        with RankingClient(server.address, timeout=PATIENCE) as client:
            assert client.rank(["item-1"]).items


def test_a_server_that_cannot_answer_never_says_serving(catalogue, scratch, monkeypatch):
    def fail(*given):
        raise RuntimeError("broken")

    monkeypatch.setattr(service, "rank_query", fail)
    server = RankingServer(catalogue.bundle, catalogue.store, free_port_settings(drain_s=0.1))
    with pytest.raises(LlmgrError, match="does not answer its own first call"):
        server.start()
    assert list(scratch.iterdir()) == []
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)


def test_it_warms_up_where_callers_need_tokens(catalogue, tmp_path):
    settings = free_port_settings(security=server_settings(tokens=token_file(tmp_path)))
    with RankingServer(catalogue.bundle, catalogue.store, settings) as server:
        assert server._warm_up._path is None
