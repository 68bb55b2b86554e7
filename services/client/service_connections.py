"""How a client of each service is made, on threads and on an event loop alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

import grpc

from services.client.calls import RetryPolicy
from services.client.connection import ServiceConnection
from services.client.security import ClientSecurity
from services.contract import embedding_service_pb2_grpc, ranking_service_pb2_grpc


class ConnectionOptions(TypedDict, total=False):
    """What every client may be given besides; see ServiceConnection."""

    retry: RetryPolicy | None
    credentials: grpc.ChannelCredentials | None
    metadata: Sequence[tuple[str, str]]
    security: ClientSecurity | None


class RankingConnection(ServiceConnection):
    """To replicas of the ranking service; see ServiceConnection for the arguments."""

    def __init__(
        self, address: str | Sequence[str] = "127.0.0.1:50052", *, timeout: float = 2.0, **options: Unpack[ConnectionOptions]
    ) -> None:
        super().__init__(address, ranking_service_pb2_grpc.RankingServiceStub, timeout=timeout, **options)


class EmbeddingConnection(ServiceConnection):
    """To the embedding service; see ServiceConnection for the arguments."""

    def __init__(
        self, address: str | Sequence[str] = "127.0.0.1:50051", *, timeout: float = 30.0, **options: Unpack[ConnectionOptions]
    ) -> None:
        super().__init__(address, embedding_service_pb2_grpc.EmbeddingServiceStub, timeout=timeout, **options)
