"""Fixtures of the services: a small catalogue, a ranking server over it, a tiny language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_fixture import Catalogue, free_port_settings, make_catalogue, make_live_catalogue
from patience import PATIENCE
from server_process import LiveServers, start_both

from services.client import RankingClient
from services.client.calls import RetryPolicy
from services.ranking.server import RankingServer


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """Bundle and store of this test alone."""
    return make_catalogue(tmp_path)


@pytest.fixture
def serve_ranking(catalogue: Catalogue) -> Iterator[Callable[..., RankingServer]]:
    """Starts a ranking server over ``catalogue`` with the settings given, and stops it after the test."""
    running: list[RankingServer] = []

    def serve(**settings: Any) -> RankingServer:
        server = RankingServer(catalogue.bundle, catalogue.store, free_port_settings(**settings))
        server.start()
        running.append(server)
        return server

    yield serve
    for server in running:
        server.stop()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankingServer]:
    """One ranking server for all tests of a module that change nothing."""
    catalogue = make_catalogue(tmp_path_factory.mktemp("catalogue"))
    with RankingServer(catalogue.bundle, catalogue.store, free_port_settings()) as server:
        yield server


@pytest.fixture(scope="module")
def ranking_client(shared_server: RankingServer) -> Iterator[RankingClient]:
    """A client of ``shared_server`` that never retries."""
    with RankingClient(shared_server.address, timeout=PATIENCE, retry=RetryPolicy(attempts=1)) as client:
        yield client


@pytest.fixture(scope="session")
def tiny_language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a language model of a few thousand random weights."""
    from tiny_language_model import write_tiny_language_model

    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_language_model(directory)
    return directory


@pytest.fixture(scope="session")
def live_servers(tmp_path_factory: pytest.TempPathFactory, tiny_language_model: Path) -> Iterator[LiveServers]:
    """Both servers as processes on one store, shared by all tests that break nothing."""
    directory = tmp_path_factory.mktemp("live")
    catalogue = make_live_catalogue(directory, tiny_language_model)
    with start_both(directory, catalogue) as servers:
        yield servers
