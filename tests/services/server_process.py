"""Both servers on one store, as a user starts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundle_fixture import Catalogue

from services.client.local_server import ServerProcess


@dataclass(frozen=True)
class LiveServers:
    """Both servers on one store."""

    catalogue: Catalogue
    embedding: ServerProcess
    ranking: ServerProcess


def places(catalogue: Catalogue) -> tuple[str, ...]:
    """Options that name bundle and store, with which no server ends itself because a busy machine lets it stand still."""
    return ("--bundle", str(catalogue.bundle), "--store", str(catalogue.store), "--set", "serve.exit_when_stuck_s=0")


@contextmanager
def start_both(directory: Path, catalogue: Catalogue) -> Iterator[LiveServers]:
    """Start both servers side by side and wait until they answer."""
    embedding = ServerProcess("embedding", directory, *places(catalogue))
    ranking = ServerProcess("ranking", directory, *places(catalogue))
    with embedding, ranking:
        yield LiveServers(catalogue, embedding, ranking)
