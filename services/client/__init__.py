"""The typed Python clients of both services, for threads and for event loops."""

from services.client.async_embedding_client import AsyncEmbeddingClient
from services.client.async_ranking_client import AsyncRankingClient
from services.client.calls import RetryPolicy
from services.client.embedding_client import EmbeddingClient
from services.client.errors import FieldViolation, ServiceError
from services.client.ranking_client import RankingClient
from services.client.results import (
    Change,
    DeletedItem,
    EmbeddedItem,
    EmbeddingInfo,
    RankedItem,
    RankedSession,
    RankingInfo,
    RejectedItem,
    StoredItem,
    Timing,
)
from services.client.security import ClientSecurity

__all__ = [
    "AsyncEmbeddingClient",
    "AsyncRankingClient",
    "Change",
    "ClientSecurity",
    "DeletedItem",
    "EmbeddedItem",
    "EmbeddingClient",
    "EmbeddingInfo",
    "FieldViolation",
    "RankedItem",
    "RankedSession",
    "RankingClient",
    "RankingInfo",
    "RejectedItem",
    "RetryPolicy",
    "ServiceError",
    "StoredItem",
    "Timing",
]
