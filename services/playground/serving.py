"""Starting and stopping the playground."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from llmgr_core.errors import InputError
from services.client import ClientSecurity, EmbeddingClient, RankingClient
from services.playground.api import PlaygroundApi
from services.playground.catalogue import Catalogue
from services.playground.server import PlaygroundServer
from services.server.addresses import is_loopback


@dataclass(frozen=True)
class Playground:
    """What the page stands on.

    Attributes:
        ranking, embedding: addresses of the services.
        host, port: of the page; port 0 takes a free one.
        max_titles: items whose titles are kept to be searched.
        plain_text: listen on other interfaces than loopback too, where everybody may insert and delete items.
        security: for both services.
    """

    ranking: str = "127.0.0.1:50052"
    embedding: str = "127.0.0.1:50051"
    host: str = "127.0.0.1"
    port: int = 8080
    max_titles: int = 100_000
    plain_text: bool = False
    security: ClientSecurity | None = None

    @contextmanager
    def serve(self) -> Iterator[PlaygroundServer]:
        """Answer while the block runs. The services may come and go meanwhile.

        Raises:
            InputError: open to other machines without ``plain_text``, or the port cannot be had.
        """
        if not is_loopback(self.host) and not self.plain_text:
            raise InputError(
                f"refusing to open the playground on {self.host}: whoever reaches it may insert and delete items",
                "keep to 127.0.0.1 and use an SSH tunnel, or say --plain-text",
            )
        with ExitStack() as stack:
            ranking = stack.enter_context(RankingClient(self.ranking, timeout=5.0, security=self.security))
            embedding = EmbeddingClient(self.embedding, timeout=20.0, security=self.security)
            catalogue = Catalogue(embedding, self.max_titles)
            stack.callback(catalogue.stop)
            stack.callback(embedding.close)
            try:
                server = PlaygroundServer(self.host, self.port, PlaygroundApi(ranking, embedding, catalogue))
            except OSError as error:
                raise InputError(
                    f"cannot listen on {self.host}:{self.port}: {error.strerror}", "choose another --port; 0 takes a free one"
                ) from None
            stack.callback(server.server_close)
            thread = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="playground", daemon=True
            )
            catalogue.start()
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            yield server
