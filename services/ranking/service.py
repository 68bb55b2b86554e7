"""The methods of the ranking service."""

from __future__ import annotations

import math
import threading
import time

import grpc

from llmgr_core import __version__
from llmgr_core.ranker import Snapshot
from llmgr_core.settings.serve import ServeSettings
from services.contract import ranking_service_pb2 as messages
from services.ranking.answers import rank_query
from services.ranking.current_ranker import CurrentRanker
from services.ranking.joint_scan import JointScan, ScanTurn
from services.ranking.metrics import RankingMetrics
from services.ranking.session_query import SessionQuery
from services.ranking.shadow_scan import ShadowScan
from services.ranking.watchdog import Watchdog
from services.server.admission import BoundedPool, seconds_since_arrival
from services.server.errors import RequestError, deadline_exceeded, invalid_field, overloaded

NANOSECONDS = 1e9
# A reply needs a moment to reach the client: waiting up to the very deadline would leave the client without the reason.
REPLY_SECONDS = 0.02
# Taking a turn that is free takes less.
SHORTEST_WAIT = 1e-4
# Only so that a call without a deadline cannot wait for ever behind a ranking that hangs.
LONGEST_TURN_SECONDS = 30.0


class RankingMethods:
    """Answers requests; the arguments of every method are a parsed message and gRPC's context.

    Args:
        current: the ranker that answers.
        settings: limits.
        metrics: what is counted.
        watchdog: looks after every ranking.
        pool: told how long one ranking keeps the others waiting.
        shadow: repeats some of the approximate rankings exactly.
    """

    def __init__(
        self,
        current: CurrentRanker,
        settings: ServeSettings,
        metrics: RankingMetrics,
        watchdog: Watchdog,
        pool: BoundedPool,
        shadow: ShadowScan | None = None,
    ) -> None:
        self._current = current
        self._settings = settings
        self._metrics = metrics
        self._watchdog = watchdog
        self._pool = pool
        self._shadow = shadow
        self._slots = threading.BoundedSemaphore(settings.ranking_slots)
        smallest = settings.joint_scan_items or None
        self._scan = JointScan(self._slots, smallest, settings.joint_scan_sessions, metrics.scan_sessions.observe)
        # Those who wait for a change must leave threads to those who do not.
        self._waiting = threading.BoundedSemaphore(max(settings.threads // 2, 1))

    def rank_session(self, request: messages.RankSessionRequest, context: grpc.ServicerContext) -> messages.RankSessionResponse:
        """RankSession."""
        queued = seconds_since_arrival()
        query = SessionQuery.checked(request, self._settings)
        queued += self._await_sequence(query.min_sequence, context)
        reply = self._rank(query, self._current.ranker.snapshot, context, queued)
        self._metrics.queue_seconds.observe(reply.timing.queue_ns / NANOSECONDS)
        return reply

    def rank_sessions(
        self, request: messages.RankSessionsRequest, context: grpc.ServicerContext
    ) -> messages.RankSessionsResponse:
        """RankSessions: every session from one state of the catalogue, with room for single requests in between."""
        queued = seconds_since_arrival()
        if len(request.sessions) > self._settings.max_batch_sessions:
            raise invalid_field(
                "sessions", f"{len(request.sessions)} sessions are more than {self._settings.max_batch_sessions}"
            )
        queries = [
            SessionQuery.checked(session, self._settings, f"sessions[{number}].")
            for number, session in enumerate(request.sessions)
        ]
        queued += self._await_sequence(max((query.min_sequence for query in queries), default=0), context)
        snapshot = self._current.ranker.snapshot
        return messages.RankSessionsResponse(results=[self._rank(query, snapshot, context, queued) for query in queries])

    def get_info(
        self, request: messages.RankingServiceGetInfoRequest, context: grpc.ServicerContext
    ) -> messages.RankingServiceGetInfoResponse:
        """GetInfo."""
        ranker, settings = self._current.ranker, self._settings
        snapshot = ranker.snapshot
        return messages.RankingServiceGetInfoResponse(
            server_version=__version__,
            model_version=ranker.version,
            encoder_version=ranker.fingerprint,
            items=snapshot.num_rankable,
            dimensions=snapshot.rows.dimension,
            store_epoch=ranker.store_epoch,
            sequence=snapshot.sequence,
            include_seen_default=snapshot.parts.scoring.include_seen,
            limits=messages.RankingLimits(
                max_top_k=settings.max_top_k,
                max_session_items=settings.max_session_items,
                max_candidates=settings.max_candidates,
                max_excluded=settings.max_excluded,
                max_sessions=settings.max_batch_sessions,
                max_message_bytes=settings.max_request_bytes,
                max_encoded_clicks=snapshot.parts.max_clicks,
            ),
        )

    def _rank(
        self, query: SessionQuery, snapshot: Snapshot, context: grpc.ServicerContext, queued: float
    ) -> messages.RankSessionResponse:
        """Rank one session when its turn comes.

        Args:
            queued: seconds the request has waited before.

        Raises:
            RequestError: DEADLINE_EXCEEDED, the client has stopped waiting.
        """
        asked = time.perf_counter()
        # gRPC drops a call whose deadline passes in its queue, but lets one that has started run on, in vain.
        if not self._slots.acquire(timeout=min(_remaining(context), LONGEST_TURN_SECONDS)):
            raise deadline_exceeded()
        began, turn = time.perf_counter(), ScanTurn(self._scan)
        try:
            with self._watchdog.watched(), turn:
                queued += began - asked

                def still_wanted() -> None:
                    if not context.is_active():
                        raise deadline_exceeded()

                still_wanted()
                reply = rank_query(query, snapshot, still_wanted, self._shadow, turn)
        finally:
            self._slots.release()
            self._pool.served(time.perf_counter() - began - turn.waited, waited=began - asked > SHORTEST_WAIT)
        reply.timing.queue_ns = int(queued * NANOSECONDS)
        reply.timing.total_ns = int(seconds_since_arrival() * NANOSECONDS)
        self._metrics.ranked(reply.timing)
        if reply.fallback:
            self._metrics.fallbacks.inc()
        return reply

    def _await_sequence(self, sequence: int, context: grpc.ServicerContext) -> float:
        """Wait until rankings know of a change; returns the seconds it took.

        Raises:
            RequestError: FAILED_PRECONDITION, with the sequence reached; or RESOURCE_EXHAUSTED where too many wait already.
        """
        if self._current.sequence >= sequence:
            return 0.0
        started = time.perf_counter()
        if not self._waiting.acquire(blocking=False):
            raise overloaded("too many requests are waiting for a change", self._settings.retry_after_ms / 1e3)
        try:
            seconds = min(self._settings.max_sequence_wait_s, max(_remaining(context) - REPLY_SECONDS, 0.0))
            reached = self._current.wait_for(sequence, seconds)
        finally:
            self._waiting.release()
        if not reached:
            known = self._current.sequence
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"rankings know of change {known}, not yet of change {sequence}",
                "SEQUENCE_NOT_REACHED",
                metadata={"sequence": str(known)},
            )
        return time.perf_counter() - started


def _remaining(context: grpc.ServicerContext) -> float:
    """Seconds until the client's deadline; without one, infinity."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else max(remaining, 0.0)
