"""What each method demands of its caller."""

from __future__ import annotations

from services.security.tokens import Scope

HEALTH = "/grpc.health.v1.Health/"
# Balancers ask without a token. Everything that stands in neither list is for administrators.
OPEN_SERVICES = (HEALTH,)
REQUIRED = {
    "/llmgr.v1.EmbeddingService/EmbedItem": Scope.WRITE,
    "/llmgr.v1.EmbeddingService/EmbedItems": Scope.WRITE,
    "/llmgr.v1.EmbeddingService/DeleteItem": Scope.WRITE,
    "/llmgr.v1.EmbeddingService/GetItem": Scope.READ,
    "/llmgr.v1.EmbeddingService/WatchChanges": Scope.READ,
    "/llmgr.v1.EmbeddingService/GetInfo": Scope.READ,
    "/llmgr.v1.RankingService/RankSession": Scope.READ,
    "/llmgr.v1.RankingService/RankSessions": Scope.READ,
    "/llmgr.v1.RankingService/GetInfo": Scope.READ,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Scope.READ,
}


def required_scope(method: str) -> Scope | None:
    """What a method, by its full path, demands; None for one that is open to everybody."""
    if method.startswith(OPEN_SERVICES):
        return None
    return REQUIRED.get(method, Scope.ADMIN)
