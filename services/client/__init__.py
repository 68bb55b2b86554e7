"""The typed Python client of both services."""

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
    "ServiceError",
    "StoredItem",
    "Timing",
]
