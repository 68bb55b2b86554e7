"""Client of the ranking service for an event loop."""

from __future__ import annotations

from collections.abc import Sequence

from services.client.async_connection import AsyncConnection
from services.client.conversion import ranked_session
from services.client.replies import ranking_info
from services.client.requests import rank_many_request, rank_request
from services.client.results import RankedSession, RankingInfo
from services.client.service_connections import RankingConnection
from services.contract import ranking_service_pb2


class AsyncRankingClient(RankingConnection, AsyncConnection):
    """As RankingClient, method by method, for one event loop."""

    async def rank(
        self,
        item_ids: Sequence[str],
        *,
        top_k: int = 0,
        candidate_ids: Sequence[str] = (),
        exclude_item_ids: Sequence[str] = (),
        include_seen: bool | None = None,
        min_sequence: int = 0,
        timeout: float | None = None,
    ) -> RankedSession:
        """See RankingClient.rank."""
        request = rank_request(
            item_ids,
            top_k=top_k,
            candidate_ids=candidate_ids,
            exclude_item_ids=exclude_item_ids,
            include_seen=include_seen,
            min_sequence=min_sequence,
        )
        return ranked_session(await self._call(self._stub.RankSession, request, timeout))

    async def rank_many(
        self,
        sessions: Sequence[Sequence[str]],
        *,
        top_k: int = 0,
        include_seen: bool | None = None,
        min_sequence: int = 0,
        timeout: float | None = None,
    ) -> list[RankedSession]:
        """See RankingClient.rank_many."""
        request = rank_many_request(sessions, top_k=top_k, include_seen=include_seen, min_sequence=min_sequence)
        reply = await self._call(self._stub.RankSessions, request, timeout)
        return [ranked_session(one) for one in reply.results]

    async def info(self, timeout: float | None = None) -> RankingInfo:
        """See RankingClient.info."""
        return ranking_info(await self._call(self._stub.GetInfo, ranking_service_pb2.RankingServiceGetInfoRequest(), timeout))
