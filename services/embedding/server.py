"""Starting and stopping the embedding server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry

from llmgr_core.settings import Settings
from llmgr_core.store import Encoder, StoreError, StoreWriter, metadata
from llmgr_core.store.item_encoder import ItemEncoder
from services.embedding.service import CONTRACT, EmbeddingService
from services.observability.tracing import tracer_of
from services.security.server_security import ServerSecurity
from services.server.binding import bind, require_free_port, server_options
from services.server.observation import CallObserver, MetricsPage
from services.server.registration import AsyncHealth, AsyncReflectionServicer, add_service
from services.server.stopping import StopSignal


@dataclass(frozen=True)
class Listening:
    """Where a started server can be reached.

    Attributes:
        host, port: of the gRPC server.
        metrics_port: of the Prometheus page; None without one.
    """

    host: str
    port: int
    metrics_port: int | None

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class EmbeddingServer:
    """A running server; make it with ``start``.

    Attributes:
        listening: where it can be reached.
    """

    listening: Listening
    _server: grpc.aio.Server
    _service: EmbeddingService
    _health: AsyncHealth
    _reflection: AsyncReflectionServicer
    _store: StoreWriter
    _observer: CallObserver
    _page: MetricsPage | None
    _settings: Settings

    async def stop(self) -> None:
        """Say NOT_SERVING, take no new calls, let those in flight finish, close the store."""
        self._health.set_serving(False)
        await asyncio.sleep(self._settings.serve.not_serving_s)
        self._service.stop_watchers()
        drained = asyncio.ensure_future(self._server.stop(self._settings.serve.drain_s))
        await asyncio.sleep(0)
        self._health.end_watches()
        self._reflection.end_streams()
        await drained
        await self._service.close()
        self._store.close()
        if self._page is not None:
            self._page.close()
        # It may wait for a collector that is away.
        await asyncio.to_thread(self._observer.close)


async def start(
    encoder: ItemEncoder, store_path: Path, settings: Settings, *, next_encoder: ItemEncoder | None = None
) -> EmbeddingServer:
    """Start an embedding server on the running event loop; it serves when this returns.

    Args:
        encoder: cleaner and language model.
        store_path: the store it writes; made where there is none.
        settings: sections [serve] and [embed].
        next_encoder: inserts are written under it too, every item is embedded with it in the background, and then it becomes
            the store's active encoder. Where it is that already, ``encoder`` is kept up to date beside it, as the way back.

    Raises:
        LlmgrError: port in use, open to other machines without TLS, store locked, damaged or of another encoder.
    """
    # Threads of the channel would answer "address in use" only after the store was opened.
    require_free_port(settings.serve.host, settings.serve.embedding_port)
    tracer = tracer_of(settings.serve.tracing, "embedding")
    observer = CallObserver("embedding", CollectorRegistry(), CONTRACT.methods_by_name, tracer=tracer)
    security = ServerSecurity(settings.serve.security, observer)
    security.require_safe_host(settings.serve.host)
    if next_encoder is not None and next_encoder.fingerprint == encoder.fingerprint:
        next_encoder = None
    store = open_store(store_path, encoder, next_encoder)
    page: MetricsPage | None = None
    try:
        if settings.embed.metrics_port >= 0:
            page = MetricsPage(observer.registry, settings.embed.metrics_port)
        # One process needs no calls spread; but a client whose certificate was withdrawn shall not stay for ever.
        options = server_options(settings.serve.max_request_bytes, max_connection_age_s=settings.serve.max_connection_age_s)
        server = grpc.aio.server(interceptors=security.async_interceptors(), options=options)
        port = bind(server, settings.serve.host, settings.serve.embedding_port, security)
        changed_over = next_encoder is not None and store.active_fingerprint() == next_encoder.fingerprint
        active, other = (next_encoder, encoder) if next_encoder is not None and changed_over else (encoder, next_encoder)
        service = EmbeddingService(active, store, settings, observer, other=other, change_over=not changed_over)
        health = AsyncHealth(server, CONTRACT.full_name)
        reflection = add_service(server, CONTRACT.full_name, service.methods())
        await server.start()
        listening = Listening(settings.serve.host, port, page.port if page else None)
        store.announce(listening.address)
        health.set_serving(True)
        return EmbeddingServer(listening, server, service, health, reflection, store, observer, page, settings)
    except BaseException:
        if page is not None:
            page.close()
        store.close()
        raise


def open_store(path: Path, encoder: ItemEncoder, next_encoder: ItemEncoder | None = None) -> StoreWriter:
    """Open a store for an encoder's vectors, or for those of two.

    Raises:
        StoreError: it serves another encoder's, or another process writes to it.
    """
    store = StoreWriter.open(path)
    try:
        if next_encoder is not None:
            store.register(Encoder(next_encoder.fingerprint, next_encoder.dimensions, next_encoder.name))
        active = store.active_fingerprint()
        meta = store.database("meta")
        following = None if next_encoder is None or active == next_encoder.fingerprint else next_encoder.fingerprint
        store.transact(lambda transaction: metadata.write_next(transaction, meta, following))
        if next_encoder is not None and active == next_encoder.fingerprint:
            return store
        if active not in (None, encoder.fingerprint):
            names = {one.fingerprint: one.description for one in store.encoders()}
            raise StoreError(
                f"{path} serves vectors of encoder {active[:12]} ({names.get(active) or 'no description'}), "
                f"not of {encoder.fingerprint[:12]} ({encoder.name})",
                "give this encoder's bundle as --next-bundle beside the old one, or run `llmgr embed` with it: both embed "
                "the catalogue and make the encoder the active one",
            )
        store.activate(Encoder(encoder.fingerprint, encoder.dimensions, encoder.name))
        return store
    except BaseException:
        store.close()
        raise


def run(
    encoder: ItemEncoder,
    store_path: Path,
    settings: Settings,
    on_ready: Callable[[Listening], None] | None = None,
    next_encoder: ItemEncoder | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        encoder, store_path, settings, next_encoder: see ``start``.
        on_ready: called once the server serves.

    Raises:
        LlmgrError: see ``start``.
    """
    asyncio.run(_serve(encoder, store_path, settings, on_ready, next_encoder))


async def _serve(
    encoder: ItemEncoder,
    store_path: Path,
    settings: Settings,
    on_ready: Callable[[Listening], None] | None,
    next_encoder: ItemEncoder | None,
) -> None:
    server = await start(encoder, store_path, settings, next_encoder=next_encoder)
    try:
        with StopSignal() as stop:
            if on_ready is not None:
                on_ready(server.listening)
            await stop.asked()
    finally:
        await server.stop()
