"""Client of the ranking service."""

from __future__ import annotations

from collections.abc import Sequence

from services.client.connection import Connection
from services.client.conversion import ranked_session
from services.client.replies import ranking_info
from services.client.requests import rank_many_request, rank_request
from services.client.results import RankedSession, RankingInfo
from services.client.service_connections import RankingConnection
from services.contract import ranking_service_pb2


class RankingClient(RankingConnection, Connection):
    """Ranks sessions; see ServiceConnection for the arguments.

    Every method raises ServiceError where the server, or the way to it, fails.
    """

    def rank(
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
        """The items most likely to be clicked after ``item_ids`` (oldest click first).

        Args:
            top_k: how many; 0 leaves it to the server (20).
            candidate_ids: rank these only; empty means the whole catalogue.
            exclude_item_ids: never return these.
            include_seen: whether items of the session may come back; None leaves it to the bundle.
            min_sequence: answer only from a catalogue that holds this change.
            timeout: seconds, retries included.
        """
        request = rank_request(
            item_ids,
            top_k=top_k,
            candidate_ids=candidate_ids,
            exclude_item_ids=exclude_item_ids,
            include_seen=include_seen,
            min_sequence=min_sequence,
        )
        return ranked_session(self._call(self._stub.RankSession, request, timeout))

    def rank_many(
        self,
        sessions: Sequence[Sequence[str]],
        *,
        top_k: int = 0,
        include_seen: bool | None = None,
        min_sequence: int = 0,
        timeout: float | None = None,
    ) -> list[RankedSession]:
        """Rankings of several sessions, in their order, all from one state of the catalogue."""
        request = rank_many_request(sessions, top_k=top_k, include_seen=include_seen, min_sequence=min_sequence)
        reply = self._call(self._stub.RankSessions, request, timeout)
        return [ranked_session(one) for one in reply.results]

    def info(self, timeout: float | None = None) -> RankingInfo:
        """What the server is and accepts."""
        return ranking_info(self._call(self._stub.GetInfo, ranking_service_pb2.RankingServiceGetInfoRequest(), timeout))
